"""The encoder, and the feature space that is fitted on its features."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Device, ModelPath, Section, Text


class EmbedParams(Section):
    """CLIP features."""

    path: ModelPath = Field(
        description="Hugging Face folder or hub id of a CLIP or SigLIP, or shipped:clip"
    )
    revision: Text | None = Field(description="commit, if path is a hub id; null for a folder")
    device: Device
    batch_size: Count = Field(description="images or texts in one forward pass")
    variance: Annotated[float, Field(ge=0.01, lt=1)] = Field(
        description="share of the features' variance that whitening keeps"
    )
