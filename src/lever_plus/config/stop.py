"""Training of the policy that decides when to stop."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Distinct, NonNegative, Positive, Share
from lever_plus.config.optim import OptimParams


class StopParams(OptimParams):
    """GRPO that decides before every pick whether another demonstration is worth its price.

    The group size, the clipping and the weight of the KL are those of `grpo`. Credit is always per
    step and the KL always exact, whatever `grpo` says.
    """

    head_rate: Positive = Field(
        description="learning rate of the stop head, as a multiple of learning_rate"
    )
    passes: Count = Field(
        description="passes over the first candidates in which only the stop head learns"
    )
    rounds: Count = Field(
        description="rounds of fresh candidates after that; each has `epochs` passes over them"
    )
    fixed_share: Share = Field(
        description="shots are weighted in this share by reward.shot_weights, and for the rest by "
        "the probability that the policy stops there"
    )
    prices: Annotated[list[NonNegative], Distinct, Field(min_length=1)] = Field(
        description="prices that training draws from, in points of reward per demonstration or "
        "token (pointer.price_per); the policy can be used with any of them"
    )
