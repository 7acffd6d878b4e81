"""Nearest neighbours among examples, by cosines of one or more parts of their features."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lever_plus.data.examples import Example, Query
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.index import made_cells, search_cells
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.features.sources import Features
from lever_plus.features.whitening import Array

LARGEST_BLOCK: Final = 40_000_000
"""Cosines that are in memory at the same time: 160 MB, and twice as much to sort them."""


def ranked(similarity: str, features: Features, query: Query, pool: Sequence[Example]) -> list[int]:
    """Return the positions in a pool, the most similar example first; of equals the first.

    Args:
        similarity: A key of `SIMILARITIES`.
        features: Where unit-length features come from.
        query: The query.
        pool: Its pool.
    """
    cosines = cosine(similarity, features, query, pool)
    positions: list[int] = np.argsort(-cosines, kind="stable").tolist()
    return positions


def cosine(similarity: str, features: Features, query: Query, pool: Sequence[Example]) -> Array:
    """Return the similarity of a query to each example of its pool, float32 [pool].

    That is a sum of cosines, one for each pair of parts in `SIMILARITIES`; arguments as `ranked`.
    """
    cosines = np.zeros(len(pool), dtype=np.float32)
    for mine, theirs in SIMILARITIES[similarity]:
        asked = features.unit_queries([query], mine)[0]
        cosines += features.unit_candidates(pool, theirs) @ asked
    return cosines


def nearest_ids(
    embeddings: Embeddings,
    part: str,
    queries: Sequence[int],
    candidates: Sequence[int],
    count: int,
    search: Literal["exact", "approximate"] = "exact",
) -> dict[int, list[int]]:
    """Return {query id: ids of its `count` nearest candidates, nearest first}.

    Args:
        embeddings: The features of all of them.
        part: "image", "question" or "answer", whose cosine is compared.
        queries: Query ids; a query that is also a candidate is its own neighbour.
        candidates: Example ids.
        count: Number of neighbours of each query.
        search: "exact" computes all cosines; "approximate" (faiss) those in the cells of an index
            that are nearest to the query.

    Raises:
        UserError: The approximate search is wanted and faiss is not installed.
        ValueError: `count` is larger than the number of candidates.
    """
    within, asked = (embeddings.unit_of(ids, part) for ids in (candidates, queries))
    rows = (_exact if search == "exact" else _approximate)(within, asked, count)
    return {q: [candidates[i] for i in row] for q, row in zip(queries, rows, strict=True)}


def _exact(within: Array, asked: Array, count: int) -> NDArray[np.int64]:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(within)
    size = max(1, LARGEST_BLOCK // len(within))
    blocks = range(0, len(asked), size)
    if len(blocks) == 1:
        return np.asarray(search.kneighbors(asked, return_distance=False))
    bar = tqdm(blocks, desc="nearest neighbours", unit="block", disable=None)
    return np.concatenate(
        [search.kneighbors(asked[start : start + size], return_distance=False) for start in bar]
    )


def _approximate(within: Array, asked: Array, count: int) -> NDArray[np.int64]:
    rows = search_cells(made_cells(within, np.arange(len(within))), asked, count)
    if (rows < 0).any():
        raise ValueError(f"{count} neighbours are more than the {len(within)} candidates")
    return rows
