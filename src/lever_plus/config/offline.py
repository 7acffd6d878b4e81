"""Offline training on the RL data: which candidates are used, RCE and AGRO."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from lever_plus.config.base import Distinct, Dropout, Few, Section, Share, Temperature, Whole
from lever_plus.config.names import check_methods
from lever_plus.config.optim import OptimParams
from lever_plus.config.rl_data import GenMethod
from lever_plus.files.names import Name

ConstantGroups = Annotated[
    Literal["drop", "keep"],
    Field(description="leave groups whose candidates all score alike out of training, or not"),
]


class RlParams(Section):
    """What RCE, AGRO and GRPO take from the RL data."""

    filter_gen_methods: Annotated[list[GenMethod], Field(min_length=1), Distinct] | None = Field(
        description="train only on candidates of these generators; null: of all"
    )
    constant_groups: ConstantGroups
    min_informative: Share = Field(
        description="smallest share of groups whose candidates differ in score; with fewer, the "
        "pipeline stops before training"
    )


class TauSchedule(Section):
    """Temperature of softmax(return / tau), which moves linearly over the optimiser steps."""

    start: Temperature = Field(description="at the first step, in points of reward")
    end: Temperature = Field(description="at the last step, in points of reward")


Credit = Annotated[
    Literal["reward_to_go", "total"],
    Field(
        description="the rewards that count for a pick: of the shots that it can change, or of all"
    ),
]


class RceParams(OptimParams):
    """Reward-weighted cross-entropy."""

    credit: Credit
    dropout: Dropout
    tau: dict[Name, TauSchedule] = Field(
        description="{method: schedule}; each method is trained, and is a row of the tables"
    )

    @field_validator("tau", mode="after")
    @classmethod
    def _named(cls, tau: dict[str, TauSchedule]) -> dict[str, TauSchedule]:
        check_methods(tau)
        return tau


class AgroParams(OptimParams):
    """Group-variance regression."""

    credit: Credit
    beta: Temperature = Field(
        description="temperature of the optimum, reference * exp(return / beta), in units of reward"
    )
    rounds: Whole = Field(description="rounds of fresh candidates that are added to the RL data")
    group_size: Few = Field(description="fresh candidates per query and round")
