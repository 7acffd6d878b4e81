"""Pools: for every query, the ordered list of the example ids that the policy may choose from.

A pool file holds example ids, never positions; positions exist only inside a batch. The file's
SHA-256 is written into every checkpoint and all RL data, so that a policy can't be evaluated on
other pools by accident.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from lever_plus.data.examples import Example, Id, by_id
from lever_plus.errors import PointerError, UserError
from lever_plus.files.checking import Row, checked
from lever_plus.files.json_files import json_lines
from lever_plus.files.reading import check_file
from lever_plus.files.writing import write_json_lines

ADVICE: Final = "run `lever-plus pool` (or `dvc repro pool`)"
PoolPolicy = Literal["per_query", "shared"]
SAMPLERS: Final[dict[str, dict[str, float]]] = {
    "random": {},
    "text": {"question": 1.0},
    "image": {"image": 1.0},
    "mixed": {"question": 0.25, "image": 0.25},
}
"""Share of a pool that is nearest to the query by each part (mixed: Yang et al. 2024, Lever LM)."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The neighbours of every query by one part, nearest first, and how many a pool takes."""

    ids: Mapping[int, Sequence[int]]
    count: int


@dataclass(frozen=True)
class Pools:
    """The pool of every query, and a hash that identifies them all.

    Attributes:
        ids: {query id: (example id, ...)}; the ids of a pool are distinct.
        sha256: SHA-256 (hex) of the pool file.
    """

    ids: Mapping[int, tuple[int, ...]]
    sha256: str

    def of(self, query_id: int) -> tuple[int, ...]:
        """Return the pool of one query; PointerError (a KeyError) if it has none."""
        if query_id not in self.ids:
            raise PointerError(f"query {query_id} has no pool: run `dvc repro pool` again.")
        return self.ids[query_id]

    def positions(self, query_id: int, pointer: Sequence[int]) -> list[int]:
        """Turn a pointer (example ids) into positions in the query's pool.

        Raises:
            PointerError: The pointer names an id outside the pool, or one twice.
        """
        return self.positions_of(query_id, [pointer])[0]

    def positions_of(self, query_id: int, pointers: Sequence[Sequence[int]]) -> list[list[int]]:
        """Turn several pointers of one query into positions; PointerError as `positions`."""
        pool = {example_id: i for i, example_id in enumerate(self.of(query_id))}
        for pointer in pointers:
            for example_id in pointer:
                if example_id not in pool:
                    raise PointerError(
                        f"query {query_id}: example {example_id} of the pointer is not in its "
                        "pool. The pointer was made for another pool: make it again from this one."
                    )
            if len(set(pointer)) != len(pointer):
                raise PointerError(
                    f"query {query_id}: pointer {tuple(pointer)} names an example twice."
                )
        return [[pool[example_id] for example_id in pointer] for pointer in pointers]


def draw_pools(
    queries: Sequence[Example],
    candidates: Sequence[Example],
    size: int,
    policy: PoolPolicy,
    rng: np.random.Generator,
    nearest: Mapping[str, Nearest] | None = None,
) -> dict[int, tuple[int, ...]]:
    """Draw the pool of every query.

    No pool holds the query itself, or an example with the query's image. With policy "shared", all
    queries get the same `size` examples without these; they are drawn from the candidates that are
    not queries if there are enough of them, else from all.

    Args:
        queries: The queries that need a pool.
        candidates: The examples that may be in a pool.
        size: Number of examples in a pool.
        policy: One pool for each query, or one for all.
        rng: Source of randomness.
        nearest: Neighbours that are put first, one `Nearest` for each part of the sampler (see
            `SAMPLERS`); the rest is drawn at random. None: all is drawn at random.

    Returns:
        {query id: (example id, ...)}.

    Raises:
        UserError: There are fewer candidates than `size`.
    """
    if policy == "shared":
        query_ids = {q.question_id for q in queries}
        free = [c for c in candidates if c.question_id not in query_ids]
        candidates = _draw(free if len(free) >= size else candidates, size, rng)
    images: dict[int, set[int]] = {}
    places = {candidate.question_id: place for place, candidate in enumerate(candidates)}
    for candidate in candidates:
        images.setdefault(candidate.image_id, set()).add(candidate.question_id)
    ids = np.array([c.question_id for c in candidates])
    pools = {}
    for query in tqdm(queries, desc="pools", disable=None):
        forbidden = {query.question_id, *images.get(query.image_id, ())}
        if policy == "shared":
            pools[query.question_id] = tuple(int(i) for i in ids if i not in forbidden)
        else:
            near = [] if nearest is None else _nearest(query, nearest, forbidden)
            pools[query.question_id] = _fill(ids, places, size, near, forbidden, rng)
    return pools


def _nearest(query: Example, nearest: Mapping[str, Nearest], forbidden: set[int]) -> list[int]:
    """Return the ids of a query's neighbours, of each part in turn, without repeats."""
    near: dict[int, None] = {}
    for neighbours in nearest.values():
        ids = neighbours.ids[query.question_id]
        fresh = (i for i in ids if i not in forbidden and i not in near)
        near.update(dict.fromkeys(islice(fresh, neighbours.count)))
    return list(near)


def _fill(
    ids: NDArray[np.int64],
    places: Mapping[int, int],
    size: int,
    near: Sequence[int],
    forbidden: set[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Return a pool of `size`: `near`, then others that are drawn at random.

    Args:
        ids: Ids of all candidates, int64 [candidates].
        places: {id: its place in `ids`}.
        size: Number of examples in the pool.
        near: Ids that are put first.
        forbidden: Ids that must not be in the pool.
        rng: Source of randomness.
    """
    may = np.ones(len(ids), dtype=bool)
    may[[places[i] for i in forbidden.union(near) if i in places]] = False
    free = ids[may]
    missing = size - len(near)
    if len(free) < missing:
        raise UserError(
            f"pool.size is {size} but only {len(free) + len(near)} examples may be in a pool: "
            "lower pool.size or add training examples."
        )
    drawn = rng.choice(free, size=missing, replace=False)
    return (*near, *(int(i) for i in drawn))


def make_scarce(
    pools: Mapping[int, tuple[int, ...]],
    twins: Mapping[int, tuple[str, ...]],
    candidates: Sequence[int],
    share: float,
    rng: np.random.Generator,
) -> dict[int, tuple[int, ...]]:
    """Replace exact twins of the query with other candidates, in a share of the pools.

    Args:
        pools: {query id: pool}.
        twins: {example id: key}; two examples with the same key are twins.
        candidates: Ids of the examples that replacements are drawn from.
        share: Share of the pools, in [0, 1], that lose their twins; each is drawn independently.
        rng: Source of randomness.

    Returns:
        New pools of the same sizes.

    Raises:
        UserError: There are not enough other candidates.
    """
    scarce = {}
    numbers = {key: number for number, key in enumerate(dict.fromkeys(twins.values()))}
    kinds = np.array([numbers[twins[c]] for c in candidates])
    places = {c: place for place, c in enumerate(candidates)}
    for query_id, pool in tqdm(pools.items(), desc="scarce pools", disable=None):
        if rng.random() >= share:
            scarce[query_id] = pool
            continue
        kept = [i for i in pool if twins[i] != twins[query_id]]
        may = kinds != numbers[twins[query_id]]
        may[[places[i] for i in (query_id, *pool) if i in places]] = False
        spare = np.flatnonzero(may)
        if len(spare) < len(pool) - len(kept):
            raise UserError(
                f"pool.scarcity: query {query_id} has {len(pool) - len(kept)} exact twins in its "
                f"pool, but only {len(spare)} other examples to replace them: raise "
                "data.source.train."
            )
        missing = rng.choice(len(spare), size=len(pool) - len(kept), replace=False)
        scarce[query_id] = (*kept, *(candidates[spare[i]] for i in missing))
    return scarce


def write_pools(path: Path, pools: Mapping[int, tuple[int, ...]]) -> Pools:
    """Write pools as JSON lines {"pool": [...], "query_id": ...} in order of the query id."""
    write_json_lines(path, ({"query_id": q, "pool": pools[q]} for q in sorted(pools)))
    return read_pools(path)


class PoolRow(Row):
    """A line of a pool file."""

    query_id: Id
    pool: Annotated[tuple[Id, ...], Field(min_length=1)]


def read_pools(path: Path) -> Pools:
    """Read a pool file.

    Raises:
        UserError: The file is missing or empty, a line is damaged, a query has two pools, or a pool
            holds an id twice, or its own query.
    """
    check_file(path, ADVICE)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    pools: dict[int, tuple[int, ...]] = {}
    same: dict[int, int] = {}  # an id is in many pools: one int object for all saves memory
    for where, content in json_lines(path, ADVICE):
        row = checked(PoolRow, content, where, ADVICE)
        if len({row.query_id, *row.pool}) <= len(row.pool):
            raise UserError(
                f"{where}: pool of {row.query_id} holds an id twice, or the query itself: {ADVICE}."
            )
        if row.query_id in pools:
            raise UserError(f"{where}: query {row.query_id} has a pool already: {ADVICE}.")
        pools[row.query_id] = tuple(same.setdefault(i, i) for i in row.pool)
    if not pools:
        raise UserError(f"{path} holds no pool: {ADVICE}.")
    return Pools(ids=pools, sha256=sha256)


def check_pools(pools: Pools, splits: Mapping[str, Sequence[Example]], path: Path) -> None:
    """Refuse pools that do not fit the examples.

    Args:
        pools: The pool of every query.
        splits: Examples of train, dev and test.
        path: File of the pools, for the error.

    Raises:
        UserError: A query is not an example; or a pool holds an id that is not a training example,
            or an example with the query's image; or pools differ in size. Only a shared pool may be
            smaller, by the examples with the query's image.
    """
    examples = by_id(splits)
    images = {example.question_id: example.image_id for example in splits["train"]}
    everything = {i for pool in pools.ids.values() for i in pool}
    size = max(map(len, pools.ids.values()))
    for query, pool in pools.ids.items():
        where = f"{path}: the pool of query {query}"
        if query not in examples:
            raise UserError(f"{where}: no example has that id: {ADVICE}.")
        own = examples[query].image_id
        for i in pool:
            if i not in images:
                raise UserError(f"{where} holds {i}, which is not a training example: {ADVICE}.")
            if images[i] == own:
                raise UserError(f"{where} holds {i}, which shows the query's image: {ADVICE}.")
        if len(pool) < size and any(images[i] != own for i in everything.difference(pool)):
            raise UserError(f"{where} has {len(pool)} examples, others have {size}: {ADVICE}.")


def _draw(examples: Sequence[Example], size: int, rng: np.random.Generator) -> list[Example]:
    if len(examples) < size:
        raise UserError(
            f"pool.size is {size} but only {len(examples)} examples may be in a pool: "
            "lower pool.size or add training examples."
        )
    return [examples[i] for i in rng.choice(len(examples), size=size, replace=False)]
