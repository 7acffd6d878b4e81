"""What the policy may choose from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import MOST, Section, Share


class PoolParams(Section):
    """What the policy may choose from."""

    policy: Literal["per_query", "shared"] = Field(
        description="one pool for each query, or one for all queries"
    )
    sampler: Literal["random", "text", "image", "mixed"] = Field(
        description="how a query's pool is drawn: at random; the nearest by question (text) or by "
        "image; mixed: half at random and a quarter by each"
    )
    search: Literal["exact", "approximate"] = Field(
        description="how the nearest are found: by all similarities, or by an index (faiss), for "
        "more than 100,000 examples"
    )
    size: Annotated[int, Field(ge=2, le=MOST)] = Field(description="number of examples in a pool")
    scarcity: Share = Field(
        description="share of pools without an exact twin of their query, which is an example that "
        "asks for the same attribute in the same language; only for the embedded data set"
    )

    @model_validator(mode="after")
    def _effective(self) -> "PoolParams":
        if self.policy == "shared" and self.sampler != "random":
            raise ValueError("a shared pool has no one query to be near: sampler must be random")
        return self
