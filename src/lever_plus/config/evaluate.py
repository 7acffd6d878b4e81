"""Evaluation on the test split."""

from typing import Annotated, Final

from pydantic import Field

from lever_plus.config.base import Count, Distinct, Few, Prose, Section, Share, Text

SELECTORS: Final = "lever_plus.selectors"
"""The entry-point group under which packages offer selectors."""


class EvaluateParams(Section):
    """Evaluation on the test split."""

    random_seeds: Few = Field(description="seeds with which the random baseline is drawn")
    diverse_relevance: Share = Field(
        description="weight of nearness to the query in maximal marginal relevance"
    )
    fixed_pointers: Few = Field(
        description="random pointers of which the fixed baseline is the best on dev"
    )
    instructions: Annotated[list[Prose], Distinct] = Field(
        description="instructions that are tried on dev together with the VLM's own; the best is a "
        "baseline without demonstrations; []: no such baseline"
    )
    best_of: Few = Field(description="pointers per question, sampled from SFT, for best-of-n")
    order_queries: Count = Field(
        description="number of test questions, from the first on, of the order diagnostics"
    )
    oracle_queries: Count = Field(
        description="number of test questions, from the first on, of the oracle and of best-of-n"
    )
    oracle_beam: Few = Field(description="beam width of the oracle's InfoScore search")
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(
        description="bootstrap resamples of an interval"
    )
    selectors: Annotated[list[Text], Distinct] = Field(
        description="your own selectors to evaluate: package.module:factory, or the name of an "
        "entry point of lever_plus.selectors"
    )
