"""Nearest neighbours among examples, by the cosine of one part of their features."""

from collections.abc import Sequence

from lever_plus.embedding.encoder import Embeddings


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
