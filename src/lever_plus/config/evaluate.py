"""Evaluation on the test split."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Section, Share


class EvaluateParams(Section):
    """Evaluation on the test split."""

    random_seeds: Count = Field(description="draws of the random baseline")
    diverse_relevance: Share = Field(
        description="weight of being near the query, in maximal marginal relevance"
    )
    fixed_pointers: Count = Field(description="pointers that the one for all queries is chosen of")
    best_of: Count = Field(description="pointers sampled from SFT for the best-of-n row")
    order_queries: Count = Field(description="test questions of the order diagnostics")
    oracle_queries: Count = Field(description="test questions of the oracle (the first ones)")
    oracle_beam: Count = Field(description="beam of the oracle's InfoScore search")
    resamples: Annotated[int, Field(ge=100)] = Field(description="bootstrap resamples")
    selectors: list[str] = Field(
        description="factories of selectors of your own, each package.module:factory, or the name "
        "of an entry point of lever_plus.selectors"
    )
