"""Candidates of the RL data."""

from typing import Literal

from pydantic import Field

from lever_plus.config.base import Count, Section, Whole


class RlDataParams(Section):
    """Candidates of the RL data; {} and 0 leave a generator out."""

    beam: Whole = Field(description="candidates from beam search")
    samples: dict[str, Count] = Field(description="{temperature: sampled candidates}")
    stochastic_beam: dict[str, Count] = Field(
        description="{temperature: candidates sampled without replacement}"
    )
    random: Whole = Field(description="uniform candidates")
    retrieval: Whole = Field(description="nearest by question, by image, by both, then the next")
    scores: list[Literal["gt_prob", "relevance"]] = Field(
        description="scores beside hard and soft, for rewards that need them"
    )


GenMethod = Literal["beam", "sample", "stochastic_beam", "random", "retrieval", "augmented"]
