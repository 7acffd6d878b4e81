"""What the policy may choose from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import MOST, Section, Share


class PoolParams(Section):
    """What the policy may choose from."""

    policy: Literal["per_query", "shared"] = Field(description="one pool a query, or one for all")
    sampler: Literal["random", "text", "image", "mixed"] = Field(
        description="how a query's pool is drawn: at random, the nearest by question or image, or "
        "half at random and a quarter by each"
    )
    search: Literal["exact", "approximate"] = Field(
        description="of the nearest: all similarities, or an index (faiss) for more than 100,000"
    )
    size: Annotated[int, Field(ge=2, le=MOST)] = Field(description="examples in a pool (K)")
    scarcity: Share = Field(
        description="share of pools without an exact twin of their query: an example that asks for "
        "the same attribute in the same language; of the embedded data set alone"
    )

    @model_validator(mode="after")
    def _effective(self) -> "PoolParams":
        if self.policy == "shared" and self.sampler != "random":
            raise ValueError("a shared pool has no query to be near: sampler must be random")
        return self
