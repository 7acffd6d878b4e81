"""An index of examples that can grow and shrink, and that finds the nearest to a query.

The vector of an example is made of the parts that a similarity compares, side by side, so that the
dot product of two vectors is the similarity's sum of cosines. An exact index computes all products.
An approximate index divides the vectors into cells (an inverted file), and computes the products in
the cells that are nearest to the query.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.examples import Example, Query
from lever_plus.errors import needs
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.features.sources import Features
from lever_plus.features.whitening import Array

Search = Literal["exact", "approximate"]
CELLS_PASSED_OVER: Final = 16
"""An approximate search looks into one of this many cells."""
SMALLEST: Final = 10_000
"""Number of examples from which on there are cells; fewer are all compared in under 1 ms."""
GROWTH: Final = 2
"""Cells are made again when the number of vectors has grown or shrunk by this factor."""
Numbers = NDArray[np.int64]


class NearestIndex:
    """Examples by number; several threads may search and change it at the same time."""

    def __init__(self, features: Features, similarity: str, search: Search = "exact") -> None:
        """Make an empty index.

        Args:
            features: Where the unit-length features come from.
            similarity: A key of `SIMILARITIES`.
            search: "exact" compares all examples, "approximate" those in the cells that are nearest
                to the query (faiss).

        Raises:
            UserError: The approximate search is wanted, and faiss is not installed.
            ValueError: There is no such similarity.
        """
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity {similarity!r} is none of {', '.join(SIMILARITIES)}")
        self._features, self._parts = features, SIMILARITIES[similarity]
        self._numbers: Numbers = np.zeros(0, dtype=np.int64)
        self._vectors: Array = np.zeros((0, 0), dtype=np.float32)
        self._cells: Any = None
        self._made_for, self._lock = 0, Lock()
        self._approximate = bool(search == "approximate" and faiss_module())

    def add(self, numbers: Sequence[int], examples: Sequence[Example]) -> None:
        """Add examples, each under the number at the same place in `numbers`."""
        parts = [self._features.unit_candidates(examples, theirs) for _, theirs in self._parts]
        fresh, named = np.concatenate(parts, axis=1), np.array(numbers, dtype=np.int64)
        with self._lock:
            held = self._vectors if len(self._vectors) else fresh[:0]
            self._vectors = np.concatenate([held, fresh])
            self._numbers = np.concatenate([self._numbers, named])
            if self._fits():
                self._cells.add_with_ids(fresh, named)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove examples by their numbers; unknown numbers are ignored."""
        with self._lock:
            stays = ~np.isin(self._numbers, np.array(numbers, dtype=np.int64))
            gone = self._numbers[~stays]
            self._vectors, self._numbers = self._vectors[stays], self._numbers[stays]
            if self._fits():
                self._cells.remove_ids(gone)

    def nearest(self, query: Query, count: int) -> Numbers:
        """Return the numbers of the `count` nearest examples, or of all if there are fewer.

        The nearest is first; of equally near ones, an exact index returns the one added first.
        """
        parts = [self._features.unit_queries([query], mine)[0] for mine, _ in self._parts]
        asked = np.concatenate(parts)
        with self._lock:
            if self._approximate and len(self._numbers) >= SMALLEST:
                return self._of_cells(asked, count)
            vectors, numbers = self._vectors, self._numbers
        cosines = vectors @ asked if len(numbers) else np.zeros(0, np.float32)
        # A partition may leave out any of equals: take all at the edge, then the first of them.
        count = min(count, len(cosines))
        edge = np.partition(cosines, -count)[-count] if count else np.float32(0)
        near = np.flatnonzero(cosines >= edge)
        return numbers[near[np.argsort(-cosines[near], kind="stable")]][:count]

    def _fits(self) -> bool:
        """Return whether there are cells for about this many vectors; else forget the cells."""
        size = len(self._numbers)
        fits = self._made_for / GROWTH <= size <= self._made_for * GROWTH
        if not fits:
            self._cells, self._made_for = None, 0
        return self._cells is not None

    def _of_cells(self, asked: Array, count: int) -> Numbers:
        if self._cells is None:
            self._cells = made_cells(self._vectors, self._numbers)
            self._made_for = len(self._numbers)
        found: Numbers = search_cells(self._cells, asked[None], min(count, len(self._numbers)))[0]
        return found


def made_cells(vectors: Array, numbers: Numbers) -> Any:
    """Return an inverted file (faiss) of vectors in about 4 sqrt(n) cells.

    The cells come from a seeded k-means, so they can be reproduced. A graph (HNSW) would depend on
    the order in which threads insert vectors.

    Args:
        vectors: float32 [n, dimensions].
        numbers: The number of each vector, int64 [n].

    Raises:
        UserError: faiss is not installed.
    """
    faiss = faiss_module()
    size, width = vectors.shape
    count = max(1, min(round(4 * size**0.5), size // 39))
    cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, count, faiss.METRIC_INNER_PRODUCT)
    cells.train(vectors)
    cells.add_with_ids(vectors, numbers)
    return cells


def search_cells(cells: Any, asked: Array, count: int) -> Numbers:
    """Return the numbers of the `count` vectors that are nearest to each query, int64 [n, count].

    The nearest sixteenth of the cells is searched; if it holds too few vectors, all cells are.

    Args:
        cells: From `made_cells`.
        asked: Vectors of the queries, float32 [n, dimensions].
        count: Number of neighbours; where there are fewer vectors, the last numbers are -1.
    """
    cells.nprobe = -(-cells.nlist // CELLS_PASSED_OVER)
    found: Numbers = cells.search(asked, count)[1]
    short = (found < 0).any(axis=1)
    if short.any():
        cells.nprobe = cells.nlist
        found[short] = cells.search(asked[short], count)[1]
    return found


def faiss_module() -> Any:
    """Return the package for approximate search; UserError if it is not installed."""
    with needs("ann", "an approximate search", "search exactly (slower, but exact)"):
        import faiss

    return faiss
