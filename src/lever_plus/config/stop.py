"""Learning when to stop."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Distinct, NonNegative, Positive, Share
from lever_plus.config.optim import OptimParams


class StopParams(OptimParams):
    """GRPO that decides after every pick whether to show another demonstration.

    Group size, clip and the weight of the KL are those of `grpo`; credit is per step, and the KL
    exact, whatever `grpo` has.
    """

    head_rate: Positive = Field(
        description="learning rate of the stop head, in multiples of the policy's"
    )
    passes: Count = Field(
        description="passes over the first candidates in which the stop head learns alone"
    )
    rounds: Count = Field(description="rounds of fresh candidates; epochs passes over each")
    fixed_share: Share = Field(
        description="of the weight of a pick's rewards that shot_weights have; the rest has where "
        "the policy stops"
    )
    prices: Annotated[list[NonNegative], Distinct, Field(min_length=1)] = Field(
        description="of a demonstration (pointer.price_per), drawn in training, points of reward"
    )
