"""The encoder, and the feature space that is fitted on its features."""

from pydantic import Field

from lever_plus.config.base import Count, Section, Share


class EmbedParams(Section):
    """CLIP features."""

    path: str | None = Field(description="Hugging Face folder or hub id of a CLIP or SigLIP")
    revision: str | None = Field(description="commit of a hub id; null for a folder")
    device: str = Field(description="cpu, cuda, cuda:1, ...")
    batch_size: Count = Field(description="images or texts in one forward pass")
    variance: Share = Field(
        description="share of variance that the policy's whitened features keep"
    )
