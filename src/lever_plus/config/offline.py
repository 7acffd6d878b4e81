"""Training on the RL data: which candidates, RCE and AGRO."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lever_plus.config.base import Distinct, Dropout, Few, Section, Share, Temperature, Whole
from lever_plus.config.names import check_methods
from lever_plus.config.optim import OptimParams
from lever_plus.config.rl_data import GenMethod
from lever_plus.files.names import Name

ConstantGroups = Annotated[
    Literal["drop", "keep"],
    Field(description="groups whose candidates score alike: left out of training, or in it"),
]


class RlParams(Section):
    """What RCE, AGRO and GRPO take from the RL data."""

    filter_gen_methods: Annotated[list[GenMethod], Field(min_length=1), Distinct] | None = Field(
        description="generators whose candidates are trained on; null: all"
    )
    constant_groups: ConstantGroups
    min_informative: Share = Field(
        description="smallest share of groups with candidates that score differently; below it the "
        "pipeline stops before training"
    )


class TauSchedule(Section):
    """Temperature of the reward softmax, linear over the optimiser steps."""

    start: Temperature = Field(description="at the first step, in points of reward")
    end: Temperature = Field(description="at the last step, in points of reward")


Credit = Annotated[
    Literal["reward_to_go", "total"],
    Field(description="a pick's return: of the shots that it can change, or of all"),
]


class RceParams(OptimParams):
    """Reward-weighted cross-entropy."""

    credit: Credit
    dropout: Dropout
    tau: dict[Name, TauSchedule] = Field(description="{method: schedule}; each method is a row")

    @field_validator("tau", mode="after")
    @classmethod
    def _named(cls, tau: dict[str, TauSchedule]) -> dict[str, TauSchedule]:
        check_methods(tau)
        return tau


class AgroParams(OptimParams):
    """Group-variance regression."""

    credit: Credit
    beta: Temperature = Field(description="temperature of reference exp(R / beta), units of reward")
    rounds: Whole = Field(description="rounds of fresh candidates that are added to the RL data")
    group_size: Few = Field(description="fresh candidates a query and round")
