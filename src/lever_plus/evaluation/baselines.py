"""Pointers without training: random, nearest neighbours, and the oracle's search."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.pool import Pools
from lever_plus.embedding.encoder import Embeddings

Pointers = list[tuple[int, ...]]
NEAREST = {"sttr": ("question",), "siir": ("image",), "mixed": ("question", "image")}
"""Parts whose cosines are added: STTR by question text, SIIR by image, mixed by both."""


def random_pointers(pools: Pools, queries: Sequence[int], shots: int, seed: int) -> Pointers:
    """Draw a uniform pointer for every query."""
    rng = np.random.default_rng([seed, 20])
    drawn = []
    for query in queries:
        pool = pools.of(query)
        positions = rng.choice(len(pool), shots, replace=False)
        drawn.append(tuple(pool[i] for i in positions))
    return drawn


def nearest_pointers(
    method: str, embeddings: Embeddings, pools: Pools, queries: Sequence[int], shots: int
) -> Pointers:
    """Return for every query the most similar examples of its pool, the most similar first.

    Args:
        method: A key of NEAREST.
        embeddings: Unit-length features; similarity is the cosine.
        pools: Pool of every query.
        queries: Query ids.
        shots: Length of the pointers.
    """
    return [
        _nearest(
            _similarity(NEAREST[method], embeddings, query, pools.of(query)), pools.of(query), shots
        )
        for query in queries
    ]


def _similarity(
    parts: Sequence[str], embeddings: Embeddings, query: int, pool: Sequence[int]
) -> NDArray[np.float32]:
    similarity = np.zeros(len(pool), dtype=np.float32)
    for part in parts:
        similarity += embeddings.unit_of(pool, part) @ embeddings.unit_of([query], part)[0]
    return similarity


def _nearest(similarity: NDArray[np.float32], pool: Sequence[int], shots: int) -> tuple[int, ...]:
    return tuple(pool[i] for i in np.argsort(-similarity, kind="stable")[:shots])
