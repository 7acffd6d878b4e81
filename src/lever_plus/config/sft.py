"""The InfoScore search, and imitation of what it finds."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lever_plus.config.base import Count, Dropout, Few, Section, Temperature
from lever_plus.config.names import SFT, SFT_BEAMS, Targets
from lever_plus.config.optim import OptimParams


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Few = Field(description="sequences kept a step, after which all candidates are scored")
    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="ICDs in a sequence")


class SftParams(OptimParams):
    """Imitation of the InfoScore searches."""

    targets: Targets = Field(
        description="{method: what it imitates}: all scores of the search, or the sequences that "
        "the search kept; RL starts from sft"
    )

    temperature: Temperature = Field(description="targets weigh softmax(InfoScore / temperature)")
    dropout: Dropout
    patience: Count | None = Field(
        description="dev evaluations without a better one that end the training; null: none do"
    )
    dev_every: Count = Field(description="epochs between two dev evaluations")

    @field_validator("targets", mode="after")
    @classmethod
    def _named(cls, targets: Targets) -> Targets:
        if SFT not in targets:
            raise ValueError(f"{SFT} is missing, and RL starts from it")
        if targets.get(SFT_BEAMS, "beams") != "beams":
            raise ValueError(f"{SFT_BEAMS} imitates beams; what {SFT} imitates may be chosen")
        return targets

    @model_validator(mode="after")
    def _whole_schedule(self) -> "SftParams":
        if self.patience is not None and self.schedule != "constant":
            raise ValueError(
                f"patience could end the training before its {self.schedule} schedule does: set "
                "patience to null, or schedule to constant"
            )
        return self
