"""Where answers are computed and kept; this changes no result."""

from typing import Annotated, Literal

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section


class RayParams(Section):
    """Ray actors that score shards of queries (`scoring.executor: ray`)."""

    address: str | None = Field(description="cluster, such as ray://head:10001; null: a local one")
    actors: Count = Field(description="copies of the VLM")
    num_cpus: Positive = Field(description="CPU cores of an actor")
    num_gpus: Annotated[float, Field(ge=0)] = Field(description="GPUs of an actor")


class ScoringParams(Section):
    """Where answers are computed and kept; this changes no result, so no stage depends on it."""

    store: str = Field(description="file of the answer store")
    features_megabytes: Annotated[int, Field(ge=0)] = Field(
        description="image features that the store keeps for later stages; 0 for none"
    )
    executor: Literal["local", "ray"] = Field(description="this process, or Ray actors")
    ray: RayParams
