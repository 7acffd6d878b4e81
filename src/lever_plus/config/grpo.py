"""Group-relative policy optimisation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import NonNegative, Positive, Text, Whole
from lever_plus.config.optim import OptimParams


class GrpoParams(OptimParams):
    """Group-relative policy optimisation."""

    start: Text = Field(
        description="offline method whose policy training starts from: agro, or one of rce.tau"
    )
    rounds: Whole = Field(
        description="rounds of fresh candidates; 0: train on the candidates of the RL data"
    )
    group_size: Annotated[int, Field(ge=2, le=10_000)] = Field(
        description="fresh candidates per query and round"
    )
    credit: Literal["reward_to_go", "total"] = Field(
        description="a step's return: the weighted rewards from its shot on, or those of all shots"
    )
    advantage: Literal["leave_one_out", "z_score"] = Field(
        description="return minus the mean of the group's others, or (return - mean) / standard "
        "deviation"
    )
    ratio: Literal["step", "sequence"] = Field(
        description="the probability ratio that is clipped: of each step, or of the whole pointer"
    )
    clip_low: Positive = Field(description="ratios below 1 - clip_low give no gradient")
    clip_high: Positive = Field(description="ratios above 1 + clip_high give no gradient")
    kl: Literal["exact", "k3"] = Field(
        description="exact: KL of the whole step distributions; k3: the older system's penalty "
        "r - 1 - log r with r = policy / reference, which is not an estimate of this KL"
    )
    kl_beta: NonNegative = Field(description="weight of the KL to the reference")
    kl_target: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        description="[min, max] of the KL in nats per pointer: after an epoch outside, kl_beta is "
        "multiplied or divided by 1.5; null: kl_beta is constant"
    )

    @model_validator(mode="after")
    def _effective(self) -> "GrpoParams":
        if self.ratio == "sequence" and self.credit != "total":
            raise ValueError("a sequence ratio has one advantage per pointer: set credit to total")
        if self.kl_target is not None and self.kl_beta == 0:
            raise ValueError("kl_target moves kl_beta, which is 0: give kl_beta a start value")
        if self.kl_target is not None and self.kl_target[0] >= self.kl_target[1]:
            raise ValueError("kl_target is [min, max]: the first must be smaller")
        return self
