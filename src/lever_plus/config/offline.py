"""Training on the RL data: which candidates, RCE and AGRO."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section, Whole
from lever_plus.config.optim import OptimParams
from lever_plus.config.rl_data import GenMethod


class RlParams(Section):
    """What RCE, AGRO and GRPO take from the RL data."""

    filter_gen_methods: list[GenMethod] | None = Field(
        min_length=1, description="generators whose candidates are trained on; null: all"
    )

    min_informative: Annotated[float, Field(ge=0, le=1)] = Field(
        description="smallest share of groups with candidates that score differently; below it the "
        "pipeline stops before training"
    )


class TauSchedule(Section):
    """Temperature of the reward softmax, linear over the optimiser steps."""

    start: Positive
    end: Positive


class RceParams(OptimParams):
    """Reward-weighted cross-entropy."""

    tau: dict[str, TauSchedule] = Field(description="{method: schedule}; each method is a row")


class AgroParams(OptimParams):
    """Group-variance regression."""

    beta: Positive = Field(description="temperature of reference exp(R / beta), units of reward")
    rounds: Whole = Field(description="rounds of fresh candidates that are added to the RL data")
    group_size: Count = Field(description="fresh candidates a query and round")
