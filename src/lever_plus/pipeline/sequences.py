"""The InfoScore sequences of the SFT queries on disk: `sft_data` writes them, `sft` reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from lever_plus.data.examples import Id
from lever_plus.data.pools import Pools
from lever_plus.errors import PointerError, UserError
from lever_plus.files.checking import Row
from lever_plus.files.json_files import json_lines_as, read_object
from lever_plus.files.writing import replacing_all, write_json, write_json_lines
from lever_plus.selectors.infoscore import ScoredSequence

META: Final = "meta.json"
ADVICE: Final = "run `dvc repro sft_data`"
Sequences = Mapping[int, Sequence[ScoredSequence]]
"""{query id: its sequences, the best first}."""


class Beam(Row):
    """A pointer and its InfoScore, a difference of two probabilities."""

    pointer: Annotated[tuple[Id, ...], Field(min_length=1)]
    info_score: Annotated[float, Field(ge=-1, le=1)]


class SequencesRow(Row):
    """The sequences of one query."""

    query_id: Id
    beams: Annotated[tuple[Beam, ...], Field(min_length=1)]


def write_sequences(path: Path, sequences: Sequences, vlm: Mapping[str, Any], pools: Pools) -> None:
    """Write the sequences, and beside them what they were made with."""
    rows = (
        {
            "query_id": query,
            "beams": [
                {"pointer": each.pointer, "info_score": round(each.info_score, 6)} for each in found
            ],
        }
        for query, found in sequences.items()
    )
    with replacing_all([path, path.with_name(META)]) as (lines, meta):
        write_json_lines(lines, rows)
        write_json(meta, {"vlm": vlm, "pool_sha256": pools.sha256})


def read_sequences(path: Path) -> dict[int, list[ScoredSequence]]:
    """Read the InfoScore sequences; UserError names a damaged line, or a query that is twice."""
    sequences: dict[int, list[ScoredSequence]] = {}
    for row in json_lines_as(SequencesRow, path, ADVICE):
        if row.query_id in sequences:
            raise UserError(f"{path}: query {row.query_id} is there twice: {ADVICE}.")
        found = [ScoredSequence(each.pointer, each.info_score) for each in row.beams]
        if len({each.pointer for each in found}) < len(found):
            raise UserError(f"{path}: query {row.query_id} has a sequence twice: {ADVICE}.")
        sequences[row.query_id] = found
    return sequences


def check_sequences(
    path: Path, sequences: Sequences, queries: Sequence[int], pools: Pools, beam: int, shots: int
) -> None:
    """Refuse sequences that are not those which the settings ask for.

    Args:
        path: Their file, for errors; what they were made with is beside it.
        sequences: What it holds.
        queries: The SFT queries.
        pools: The pool of every query.
        beam: Sequences of a query.
        shots: Length of a sequence.

    Raises:
        UserError: A query is missing or is no SFT query, a sequence has another length or leaves
            its query's pool, or they were made from other pools.
    """
    if read_object(path.with_name(META), ADVICE).get("pool_sha256") != pools.sha256:
        raise UserError(f"{path} was made from other pools: {ADVICE}.")
    for ids, what in (
        (set(queries) - sequences.keys(), "SFT queries are missing"),
        (sequences.keys() - set(queries), "queries are no SFT queries"),
    ):
        if ids:
            raise UserError(f"{path}: {len(ids)} {what} (first: {min(ids)}): {ADVICE}.")
    for query, found in sequences.items():
        lengths = {len(each.pointer) for each in found}
        if len(found) != beam or lengths != {shots}:
            raise UserError(
                f"{path}: query {query} does not have {beam} sequences of {shots} examples: "
                f"{ADVICE}."
            )
        for each in found:
            try:
                pools.positions(query, each.pointer)
            except PointerError as error:
                raise UserError(f"{path}: {error}") from error
