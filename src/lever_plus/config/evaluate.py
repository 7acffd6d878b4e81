"""Evaluation on the test split."""

from typing import Annotated, Final

from pydantic import Field

from lever_plus.config.base import Count, Distinct, Few, Prose, Section, Share, Text

SELECTORS: Final = "lever_plus.selectors"
"""Group of the entry points of a user's own selectors."""


class EvaluateParams(Section):
    """Evaluation on the test split."""

    random_seeds: Few = Field(description="draws of the random baseline")
    diverse_relevance: Share = Field(
        description="weight of being near the query, in maximal marginal relevance"
    )
    fixed_pointers: Few = Field(description="pointers that the one for all queries is chosen of")
    instructions: Annotated[list[Prose], Distinct] = Field(
        description="texts after every question that the best on dev is chosen of, that of vlm "
        "beside them; empty: no such method"
    )
    best_of: Few = Field(description="pointers sampled from SFT for the best-of-n row")
    order_queries: Count = Field(description="test questions of the order diagnostics")
    oracle_queries: Count = Field(description="test questions of the oracle (the first ones)")
    oracle_beam: Few = Field(description="beam of the oracle's InfoScore search")
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        description="bootstrap resamples"
    )
    selectors: Annotated[list[Text], Distinct] = Field(
        description="factories of selectors of your own, each package.module:factory, or the name "
        "of an entry point of lever_plus.selectors"
    )
