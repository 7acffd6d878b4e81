"""The in-context table of the embedded data set: how much which demonstrations help the VLM."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Section


class InContextParams(Section):
    """What the configured VLM reads from demonstrations."""

    probes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        description="questions asked for each row of the in-context table"
    )
