"""The InfoScore search, and imitation of what it finds."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from lever_plus.config.base import Count, Dropout, Few, Section, Temperature
from lever_plus.config.names import SFT, SFT_BEAMS, Targets
from lever_plus.config.optim import OptimParams


class SftDataParams(Section):
    """InfoScore beam search."""

    beam: Few = Field(
        description="sequences kept after each step; the next scores every extension of them"
    )
    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="demonstrations per sequence")


class SftParams(OptimParams):
    """Imitation of the InfoScore searches."""

    targets: Targets = Field(
        description="{method: what it imitates}: scores: all scores of the search; beams: the "
        "sequences that it kept; RL starts from sft"
    )

    temperature: Temperature = Field(
        description="targets are weighted by softmax(InfoScore / temperature)"
    )
    dropout: Dropout
    patience: Count | None = Field(
        description="end training after this many dev evaluations in a row without a new best; "
        "null: never"
    )
    dev_every: Count = Field(description="epochs from one dev evaluation to the next")

    @field_validator("targets", mode="after")
    @classmethod
    def _named(cls, targets: Targets) -> Targets:
        if SFT not in targets:
            raise ValueError(f"{SFT} is missing, and RL starts from it")
        if targets.get(SFT_BEAMS, "beams") != "beams":
            raise ValueError(f"{SFT_BEAMS} must imitate beams; only for {SFT} is there a choice")
        return targets

    @model_validator(mode="after")
    def _whole_schedule(self) -> "SftParams":
        if self.patience is not None and self.schedule != "constant":
            raise ValueError(
                f"patience could end the training before its {self.schedule} schedule does: set "
                "patience to null, or schedule to constant"
            )
        return self
