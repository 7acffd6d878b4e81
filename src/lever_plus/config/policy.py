"""The network inside a selector, and the length of its pointers."""

from typing import Annotated, Literal

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section


class StatefulPolicyParams(Section):
    """A network whose step sees what was picked before."""

    kind: Literal["stateful"]
    hidden: Count = Field(description="width of the policy")
    logit_clip: Positive = Field(description="logits are clip * tanh(score / clip)")


class V2PolicyParams(Section):
    """Cross-attention of the query over the pool, then one static score a candidate."""

    kind: Literal["v2"]
    hidden: Count = Field(description="width of the policy")
    layers: Count = Field(description="cross-attention layers")
    temperature: Positive = Field(description="logits are cosines over this")


PolicyParams = Annotated[StatefulPolicyParams | V2PolicyParams, Field(discriminator="kind")]


class PointerParams(Section):
    """Pointers."""

    shots: Annotated[int, Field(ge=1, le=16)] = Field(description="ICDs in a pointer (K of shot K)")
