"""Evaluation on the test split."""

from typing import Annotated, Final

from pydantic import Field

from lever_plus.config.base import Count, Distinct, Few, Prose, Section, Share, Text

SELECTORS: Final = "lever_plus.selectors"
"""The entry-point group under which packages offer selectors."""


class EvaluateParams(Section):
    """Evaluation on the test split."""

    random_seeds: Few = Field(description="number of seeds with which the random baseline is drawn")
    diverse_relevance: Share = Field(
        description="weight of nearness to the query in maximal marginal relevance"
    )
    fixed_pointers: Few = Field(
        description="number of random pointers that are tried on dev; the best is the fixed "
        "baseline"
    )
    instructions: Annotated[list[Prose], Distinct] = Field(
        description="instructions that are tried on dev together with the VLM's own; the best is a "
        "baseline without demonstrations; []: no such baseline"
    )
    best_of: Few = Field(
        description="number of pointers per question that are sampled from SFT for best-of-n"
    )
    order_queries: Count = Field(
        description="number of test questions that the order diagnostics use: the first ones"
    )
    oracle_queries: Count = Field(
        description="number of test questions that the oracle and best-of-n use: the first ones"
    )
    oracle_beam: Few = Field(description="beam width of the oracle's InfoScore search")
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        description="number of bootstrap resamples per interval"
    )
    selectors: Annotated[list[Text], Distinct] = Field(
        description="your own selectors to evaluate: package.module:factory, or the name of an "
        "entry point of lever_plus.selectors"
    )
