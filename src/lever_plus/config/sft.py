"""The InfoScore search, and imitation of what it finds."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Few, Section, Temperature
from lever_plus.config.optim import OptimParams


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Few = Field(description="sequences kept a step; all of them become targets")
    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="ICDs in a sequence")


class SftParams(OptimParams):
    """Imitation of the InfoScore sequences."""

    temperature: Temperature = Field(description="targets weigh softmax(InfoScore / temperature)")
    dropout: Annotated[float, Field(ge=0, le=0.99)]
    dev_every: Count = Field(description="epochs between two dev evaluations")
