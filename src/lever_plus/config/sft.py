"""The InfoScore search, and imitation of what it finds."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section
from lever_plus.config.optim import OptimParams


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Count = Field(description="sequences kept a step; all of them become targets")
    shots: Count = Field(description="ICDs in a sequence")


class SftParams(OptimParams):
    """Imitation of the InfoScore sequences."""

    temperature: Positive = Field(description="targets weigh softmax(InfoScore / temperature)")
    dropout: Annotated[float, Field(ge=0, lt=1)]
    dev_every: Count = Field(description="epochs between two dev evaluations")
