"""An index of examples that grows and shrinks, asked for those nearest to a query.

Vectors are the parts that a similarity compares, side by side, so that their product is its sum of
cosines. An exact index computes all products; an approximate one those in the cells of an inverted
file that are nearest to the query.
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
"""An approximate search looks into one cell of so many."""
SMALLEST: Final = 10_000
"""Examples from which cells are made; fewer are searched one by one in less than a millisecond."""
GROWTH: Final = 2
"""Cells are made anew when there are so many times more, or fewer, vectors than they were for."""
Numbers = NDArray[np.int64]


class NearestIndex:
    """Examples by number; may be searched and changed by several threads."""

    def __init__(self, features: Features, similarity: str, search: Search = "exact") -> None:
        """Keep what vectors are made of.

        Args:
            features: Unit-length features.
            similarity: A key of `SIMILARITIES`.
            search: All examples, or those in the cells nearest to the query (faiss).

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
        """Add examples under numbers of their own."""
        parts = [self._features.unit_candidates(examples, theirs) for _, theirs in self._parts]
        fresh, named = np.concatenate(parts, axis=1), np.array(numbers, dtype=np.int64)
        with self._lock:
            held = self._vectors if len(self._vectors) else fresh[:0]
            self._vectors = np.concatenate([held, fresh])
            self._numbers = np.concatenate([self._numbers, named])
            if self._fits():
                self._cells.add_with_ids(fresh, named)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove examples; numbers that are not there are passed over."""
        with self._lock:
            stays = ~np.isin(self._numbers, np.array(numbers, dtype=np.int64))
            gone = self._numbers[~stays]
            self._vectors, self._numbers = self._vectors[stays], self._numbers[stays]
            if self._fits():
                self._cells.remove_ids(gone)

    def nearest(self, query: Query, count: int) -> Numbers:
        """Return the numbers of the `count` nearest examples, or of all, the nearest first."""
        parts = [self._features.unit_queries([query], mine)[0] for mine, _ in self._parts]
        asked = np.concatenate(parts)
        with self._lock:
            if self._approximate and len(self._numbers) >= SMALLEST:
                return self._of_cells(asked, count)
            vectors, numbers = self._vectors, self._numbers
        cosines = vectors @ asked if len(numbers) else np.zeros(0, np.float32)
        # Equals in the order in which they were added, whatever a partition makes of them.
        count = min(count, len(cosines))
        edge = np.partition(cosines, -count)[-count] if count else np.float32(0)
        near = np.flatnonzero(cosines >= edge)
        return numbers[near[np.argsort(-cosines[near], kind="stable")]][:count]

    def _fits(self) -> bool:
        """Return whether there are cells for about so many vectors; else they are made anew."""
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
    """Return an inverted file of 4 sqrt(n) cells (faiss), which finds vectors by their numbers.

    Its cells come from a seeded k-means, so that they can be made again; a graph (HNSW) would
    depend on the order in which threads insert.

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
    """Return the numbers of what is nearest to each vector asked [n, dimensions], [n, count].

    The sixteenth of the cells that is nearest is searched; where it holds too few, all are.
    """
    cells.nprobe = -(-cells.nlist // CELLS_PASSED_OVER)
    found: Numbers = cells.search(asked, count)[1]
    short = (found < 0).any(axis=1)
    if short.any():
        cells.nprobe = cells.nlist
        found[short] = cells.search(asked[short], count)[1]
    return found


def faiss_module() -> Any:
    """Return the package that searches approximately; UserError if it is not installed."""
    with needs("ann", "an approximate search", "search exactly (slower, and better)"):
        import faiss

    return faiss
