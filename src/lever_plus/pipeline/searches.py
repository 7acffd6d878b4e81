"""The file of InfoScore searches for the SFT queries; `sft_data` writes it, `sft` reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from lever_plus.data.examples import Id
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.files.checking import Row
from lever_plus.files.json_files import json_lines_as, read_object
from lever_plus.files.writing import replacing_all, write_json, write_json_lines
from lever_plus.selectors.infoscore import ScoredPrefix

META: Final = "meta.json"
ADVICE: Final = "run `dvc repro sft_data`"
Searches = Mapping[int, Sequence[ScoredPrefix]]
"""{query id: what was scored, shortest prefixes first}."""
Score = Annotated[float, Field(ge=-1, le=1)]


class PrefixRow(Row):
    """A prefix, the candidates that may follow it, and the InfoScore with each of them."""

    prefix: tuple[Id, ...]
    candidates: Annotated[tuple[Id, ...], Field(min_length=1)]
    info_scores: tuple[Score, ...]

    @model_validator(mode="after")
    def _one_score_each(self) -> "PrefixRow":
        named = (*self.prefix, *self.candidates)
        if len(self.info_scores) != len(self.candidates):
            raise ValueError(
                f"there are {len(self.candidates)} candidates and {len(self.info_scores)} scores"
            )
        if len(set(named)) < len(named):
            raise ValueError("it names an example twice")
        return self


class SearchRow(Row):
    """The search of one query."""

    query_id: Id
    scored: Annotated[tuple[PrefixRow, ...], Field(min_length=1)]


def write_searches(path: Path, searches: Searches, vlm: Mapping[str, Any], pools: Pools) -> None:
    """Write the searches, and next to them a file that says what they were made with."""
    rows = (
        {
            "query_id": query,
            "scored": [
                {
                    "prefix": each.prefix,
                    "candidates": each.candidates,
                    "info_scores": [round(score, 6) for score in each.info_scores],
                }
                for each in scored
            ],
        }
        for query, scored in searches.items()
    )
    with replacing_all([path, path.with_name(META)]) as (lines, meta):
        write_json_lines(lines, rows)
        write_json(meta, {"vlm": vlm, "pool_sha256": pools.sha256})


def read_searches(path: Path) -> dict[int, list[ScoredPrefix]]:
    """Read the searches.

    Raises:
        UserError: A line is damaged, or a query or a prefix occurs twice.
    """
    searches: dict[int, list[ScoredPrefix]] = {}
    for row in json_lines_as(SearchRow, path, ADVICE):
        if row.query_id in searches:
            raise UserError(f"{path}: query {row.query_id} occurs twice: {ADVICE}.")
        scored = [ScoredPrefix(s.prefix, s.candidates, s.info_scores) for s in row.scored]
        if len({each.prefix for each in scored}) < len(scored):
            raise UserError(f"{path}: query {row.query_id} has a prefix twice: {ADVICE}.")
        searches[row.query_id] = scored
    return searches


def check_searches(
    path: Path, searches: Searches, queries: Sequence[int], pools: Pools, beam: int, shots: int
) -> None:
    """Refuse searches that do not fit the settings.

    Args:
        path: The file of the searches; what they were made with is in a file next to it.
        searches: The content of that file.
        queries: The SFT queries.
        pools: The pool of every query.
        beam: How many prefixes of each length a search extends (for length 0 there is only one).
        shots: Length of the longest sequences.

    Raises:
        UserError: A query is missing or is not an SFT query, a prefix is missing or too long, its
            candidates are not the rest of the query's pool, or the pools were different.
    """
    if read_object(path.with_name(META), ADVICE).get("pool_sha256") != pools.sha256:
        raise UserError(f"{path} was made from other pools: {ADVICE}.")
    for ids, what in (
        (set(queries) - searches.keys(), "SFT queries are missing"),
        (searches.keys() - set(queries), "queries are not SFT queries"),
    ):
        if ids:
            raise UserError(f"{path}: {len(ids)} {what} (first: {min(ids)}): {ADVICE}.")
    for query, scored in searches.items():
        pool = pools.of(query)
        wanted = [length for length in range(shots) for _ in range(_kept(len(pool), length, beam))]
        if [len(each.prefix) for each in scored] != wanted:
            raise UserError(
                f"{path}: query {query} does not have the {len(wanted)} prefixes of a search for "
                f"{shots} examples that keeps {beam}: {ADVICE}."
            )
        for each in scored:
            if {*each.prefix, *each.candidates} != set(pool):
                raise UserError(
                    f"{path}: query {query}: after {list(each.prefix)} the candidates are not the "
                    f"rest of its pool: {ADVICE}."
                )


def _kept(pool: int, length: int, beam: int) -> int:
    """Return how many prefixes of a length a search keeps: `beam`, or all if there are fewer."""
    there = 1
    for picked in range(length):
        there = min(there, beam) * (pool - picked)
    return min(there, beam if length else 1)
