"""How long it takes to select demonstrations for one question on one core: encoding and choosing.

Questions come one at a time. Encoding opens the question's image and runs the encoder on image and
question; choosing is everything else. The pool is encoded beforehand. From a large pool the
selector chooses among a query's nearest neighbours only, which are found by an exact and by an
approximate search. The examples of the large pool are copies with slightly different features.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from lever_plus.bench.made import Made, make, percentiles
from lever_plus.config.params import Params
from lever_plus.data.examples import Example, Query
from lever_plus.features.sources import Features
from lever_plus.features.whitening import Array
from lever_plus.hub.threads import on_threads
from lever_plus.selectors.learned import LearnedSelector, load_selector
from lever_plus.selectors.live_pool import CANDIDATES, LivePool

SMALL: Final = 64
LARGE: Final = 100_000
QUERIES: Final = 200
SHOTS: Final = 4
TOGETHER: Final = 50
SPREAD: Final = 0.5
"""How far a copy's features are from the original's, relative to the length of the original's."""
Figures = dict[str, float]


def run(params: Params, large: int = LARGE) -> dict[str, Figures]:
    """Return the figures of a pool like those of training, and of a large one.

    Args:
        params: Parameters of the pipeline.
        large: Number of examples in the large pool.

    Returns:
        {"4 of 64": {...}, "4 of 100000, exact": {...}, "4 of 100000, approximate": {...}}.

    Raises:
        UserError: The encoder is missing, faiss is not installed, or the policy picks fewer than
            `SHOTS`.
    """
    with TemporaryDirectory() as folder, on_threads(1):
        made = make(Path(folder), params, SMALL, QUERIES)
        selector = load_selector(made.checkpoint)
        found = {f"{SHOTS} of {SMALL}": measure(LivePool(selector, made.pool), made.queries)}
        found |= _large(made, selector, large)
    return found


def measure(pool: LivePool, queries: Sequence[Query]) -> Figures:
    """Return p50 and p95 of encoding and of choosing in ms, one question at a time.

    Returns:
        Also `choose_together_ms`: the time per question if `TOGETHER` questions come at once.
    """
    encoding, choosing = [], []
    for query in queries:
        begun = time.perf_counter()
        pool.selector.features.queries([query])
        encoded = time.perf_counter()
        pool.select(query, SHOTS)
        choosing.append(time.perf_counter() - encoded)
        encoding.append(encoded - begun)
    begun = time.perf_counter()
    pool.select_all(queries[:TOGETHER], SHOTS)
    together = (time.perf_counter() - begun) / TOGETHER
    return {
        "queries": len(queries),
        **percentiles(encoding, "encode"),
        **percentiles(choosing, "choose"),
        "choose_together_ms": round(1000 * together, 3),
    }


def _large(made: Made, selector: LearnedSelector, size: int) -> dict[str, Figures]:
    copies = LearnedSelector(selector.policy, _Copies(selector.features, made.pool, size))
    examples = [
        replace(
            made.pool[number % len(made.pool)],
            question_id=number,
            image_id=number,
            image_sha256=f"{number:064x}",
        )
        for number in range(1, size + 1)
    ]
    exact = LivePool(copies, examples)
    nearly = LivePool(copies, examples, search="approximate")
    begun = time.perf_counter()
    nearly.select(made.queries[0], SHOTS)
    cells = time.perf_counter() - begun
    found = {}
    for name, pool in (("exact", exact), ("approximate", nearly)):
        figures = measure(pool, made.queries)
        begun = time.perf_counter()
        pool.remove(pool.add([replace(examples[0], answer="another")]))
        figures["add_and_remove_ms"] = round(1000 * (time.perf_counter() - begun), 1)
        found[f"{SHOTS} of {size}, {name}"] = figures
    found[f"{SHOTS} of {size}, approximate"] |= {
        "first_s": round(cells, 2),
        "recall": round(_recall(exact, nearly, made.queries), 3),
    }
    return found


def _recall(exact: LivePool, nearly: LivePool, queries: Sequence[Query]) -> float:
    """Return the share of the nearest neighbours that an approximate search finds."""
    pairs = [(exact.neighbours(query), nearly.neighbours(query)) for query in queries]
    hits = sum(len(set(true) & set(found)) for true, found in pairs)
    return hits / (CANDIDATES * len(queries))


class _Copies:
    """Features of copies: those of the originals, each moved in a random direction."""

    def __init__(self, features: Features, examples: Sequence[Example], size: int) -> None:
        self._features, rng = features, np.random.default_rng(0)
        self._unit: dict[str, Array] = {}
        for part in ("question", "image", "answer"):
            rows = features.unit_candidates(examples, part)
            moved = np.resize(rows, (size + 1, rows.shape[1])).astype(np.float32)
            noise = rng.normal(size=moved.shape).astype(np.float32)
            moved += SPREAD * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            self._unit[part] = moved / np.linalg.norm(moved, axis=1, keepdims=True)

    @property
    def space_sha256(self) -> str:
        return self._features.space_sha256

    def queries(self, queries: Sequence[Query]) -> Array:
        return self._features.queries(queries)

    def candidates(self, examples: Sequence[Example]) -> Array:
        parts = [self.unit_candidates(examples, part) for part in self._unit]
        return np.concatenate(parts, axis=1)

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        return self._features.unit_queries(queries, part)

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        rows = [example.question_id % len(self._unit[part]) for example in examples]
        return np.take(self._unit[part], rows, axis=0)
