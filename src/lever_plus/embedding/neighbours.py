"""Nearest neighbours among examples, by the cosine of one or more parts of their features."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from lever_plus.embedding.encoder import Array, Embeddings

SIMILARITIES: Final = {
    "sttr": (("question", "question"),),
    "siir": (("image", "image"),),
    "sitr": (("image", "question"),),
    "mixed": (("question", "question"), ("image", "image")),
}
"""Parts of query and candidate whose cosines are added.

STTR by question text, SIIR by image, SITR by the query's image and the candidate's text, mixed by
text and image (MMICES)."""


def ranked(similarity: str, embeddings: Embeddings, query: int, pool: Sequence[int]) -> list[int]:
    """Return the positions of a pool, those of the most similar examples first.

    Args:
        similarity: A key of SIMILARITIES.
        embeddings: Unit-length features; similarity is the cosine.
        query: Query id.
        pool: Its pool.
    """
    cosines = cosine(similarity, embeddings, query, pool)
    positions: list[int] = np.argsort(-cosines, kind="stable").tolist()
    return positions


def cosine(similarity: str, embeddings: Embeddings, query: int, pool: Sequence[int]) -> Array:
    """Return the similarity of a query to every candidate of its pool, float [pool]."""
    cosines = np.zeros(len(pool), dtype=np.float32)
    for mine, theirs in SIMILARITIES[similarity]:
        cosines += embeddings.unit_of(pool, theirs) @ embeddings.unit_of([query], mine)[0]
    return cosines


def nearest_ids(
    embeddings: Embeddings,
    part: str,
    queries: Sequence[int],
    candidates: Sequence[int],
    count: int,
) -> dict[int, list[int]]:
    """Return {query id: ids of its `count` nearest candidates, nearest first}.

    Args:
        embeddings: Unit-length features.
        part: "image", "question" or "answer".
        queries: Query ids; a query that is a candidate finds itself too.
        candidates: Example ids.
        count: Neighbours of each query.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
    search.fit(embeddings.unit_of(candidates, part))
    rows = search.kneighbors(embeddings.unit_of(queries, part), return_distance=False)
    return {q: [candidates[i] for i in row] for q, row in zip(queries, rows, strict=True)}
