"""The network inside a selector, and the length of its pointers."""

from typing import Annotated, Literal

from pydantic import Field

from lever_plus.config.base import Few, NonNegative, Section, Temperature, Width


class ResidualPolicyParams(Section):
    """The static scores of `v2`, corrected at each step by what was picked before."""

    kind: Literal["residual"] = Field(
        description="static scores, corrected at each step by what was picked before"
    )
    hidden: Width = Field(description="width of the policy")
    layers: Few = Field(description="cross-attention layers")
    temperature: Temperature = Field(description="logits are cosines divided by this")


class StatefulPolicyParams(Section):
    """A network whose step sees what was picked before."""

    kind: Literal["stateful"] = Field(
        description="each step scores the candidates again, given what was picked before"
    )
    hidden: Width = Field(description="width of the policy")
    logit_clip: Annotated[float, Field(ge=0.01, le=1e4)] = Field(
        description="logits are clip * tanh(score / clip)"
    )


class V2PolicyParams(Section):
    """Cross-attention of the query over the pool, then one static score per example of the pool."""

    kind: Literal["v2"] = Field(description="static scores, the same at every step")
    hidden: Width = Field(description="width of the policy")
    layers: Few = Field(description="cross-attention layers")
    temperature: Temperature = Field(description="logits are cosines divided by this")


PolicyParams = Annotated[
    ResidualPolicyParams | StatefulPolicyParams | V2PolicyParams, Field(discriminator="kind")
]


class PointerParams(Section):
    """The length of pointers, and the price of a demonstration."""

    shots: Annotated[int, Field(ge=1, le=16)] = Field(
        description="demonstrations in a pointer (K of shot K)"
    )
    price: NonNegative = Field(
        description="for policies that decide when to stop: the reward that one more demonstration "
        "(or, with `price_per: token`, each token that it adds) must be expected to bring, else it "
        "is not shown"
    )
    price_per: Literal["demonstration", "token"] = Field(
        description="what the price is paid for: each demonstration, or each token that it adds"
    )
