"""Where answers are computed and kept; this changes no result."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import Few, Section, Text, Whole


class RayParams(Section):
    """Ray actors that score shards of queries (`scoring.executor: ray`)."""

    address: Text | None = Field(description="cluster, such as ray://head:10001; null: a local one")
    actors: Few = Field(description="number of actors; each has a copy of the VLM")
    num_cpus: Annotated[float, Field(ge=1e-4, le=10_000)] = Field(description="CPU cores per actor")
    num_gpus: Annotated[float, Field(ge=0, le=1000)] = Field(description="GPUs per actor")

    @model_validator(mode="after")
    def _shareable(self) -> "RayParams":
        if 0 < self.num_gpus < 1e-4 or (self.num_gpus > 1 and self.num_gpus % 1):
            raise ValueError("num_gpus must be 0, a share of one GPU (0.5), or a whole number")
        return self


class ScoringParams(Section):
    """Where answers are computed and kept; this changes no result, so no stage depends on it."""

    store: Text = Field(description="file of the answer store")
    features_megabytes: Whole = Field(
        description="megabytes of image features that the store keeps for later stages; 0: none"
    )
    executor: Literal["local", "ray"] = Field(
        description="where the VLM runs: in this process, or in Ray actors"
    )
    ray: RayParams
