"""Pointers without a policy: random, nearest, diverse, and one fixed pointer for all queries."""

from collections.abc import Sequence

import numpy as np

from lever_plus.data.pools import Pools
from lever_plus.features.encoder import Embeddings
from lever_plus.features.neighbours import cosine, ranked
from lever_plus.features.similarities import STTR

Pointers = list[tuple[int, ...]]


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
        method: A key of SIMILARITIES.
        embeddings: Unit-length features; similarity is the cosine.
        pools: Pool of every query.
        queries: Query ids.
        shots: Length of the pointers.
    """
    pointers = []
    for query in queries:
        pool = pools.of(query)
        positions = ranked(method, embeddings, query, pool)[:shots]
        pointers.append(tuple(pool[i] for i in positions))
    return pointers


def diverse_pointers(
    embeddings: Embeddings, pools: Pools, queries: Sequence[int], shots: int, relevance: float
) -> Pointers:
    """Return pointers by maximal marginal relevance of the question text.

    Each pick maximises  relevance * cos(query, c) - (1 - relevance) * max over picked cos(c, p)
    (Carbonell and Goldstein 1998).

    Args:
        embeddings: Unit-length features.
        pools: Pool of every query.
        queries: Query ids.
        shots: Length of the pointers.
        relevance: Weight of being near the query, in [0, 1]; 1 is the nearest ones.
    """
    pointers = []
    for query in queries:
        pool = pools.of(query)
        near = cosine(STTR, embeddings, query, pool)
        text = embeddings.unit_of(pool, "question")
        closest = np.zeros(len(pool), dtype=np.float32)  # to a picked one
        picked: list[int] = []
        for _ in range(shots):
            score = relevance * near - (1 - relevance) * closest
            score[picked] = -np.inf
            picked.append(int(score.argmax()))
            closest = np.maximum(closest, text @ text[picked[-1]])
        pointers.append(tuple(pool[i] for i in picked))
    return pointers


def fixed_candidates(
    pools: Pools, queries: Sequence[int], shots: int, count: int, seed: int
) -> Pointers:
    """Draw pointers that could stand before any of the queries: from what all their pools hold.

    Where pools differ, they share nothing: then any example of any pool of these queries may be
    drawn, and the pointer is not bound to pools.
    """
    held = [set(pools.of(query)) for query in queries]
    common = set.intersection(*held)
    choices = sorted(common if len(common) >= shots else set.union(*held))
    rng = np.random.default_rng([seed, 21])
    return [tuple(map(int, rng.choice(choices, shots, replace=False))) for _ in range(count)]
