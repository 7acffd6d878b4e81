"""The InfoScore search, and imitation of what it finds."""

from typing import Annotated

from pydantic import Field, model_validator

from lever_plus.config.base import Count, Dropout, Few, Section, Temperature
from lever_plus.config.optim import OptimParams


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Few = Field(description="sequences kept a step, after which all candidates are scored")
    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="ICDs in a sequence")


class SftParams(OptimParams):
    """Imitation of the InfoScore searches."""

    temperature: Temperature = Field(description="targets weigh softmax(InfoScore / temperature)")
    dropout: Dropout
    patience: Count | None = Field(
        description="dev evaluations without a better one that end the training; null: none do"
    )
    dev_every: Count = Field(description="epochs between two dev evaluations")

    @model_validator(mode="after")
    def _whole_schedule(self) -> "SftParams":
        if self.patience is not None and self.schedule != "constant":
            raise ValueError(
                f"patience could end the training before its {self.schedule} schedule does: set "
                "patience to null, or schedule to constant"
            )
        return self
