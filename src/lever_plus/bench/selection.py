"""How long one question waits for its demonstrations, on one core: encoding, and choosing.

One question is asked at a time, as by a program that has just got it. Encoding opens its image and
runs the encoder on image and question; choosing is all of the rest, checks included. The pool is
encoded before.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from lever_plus.bench.made import Made, make, percentiles
from lever_plus.config.params import Params
from lever_plus.hub.threads import on_threads
from lever_plus.selectors.base import select_all
from lever_plus.selectors.learned import load_selector

POOLS: Final = (64,)
"""Sizes of pools that are measured."""
QUERIES: Final = 200
SHOTS: Final = 4
TOGETHER: Final = 50


def run(params: Params, pools: Sequence[int] = POOLS) -> dict[str, dict[str, float]]:
    """Return the figures of every size of pool: {"4 of 64": {...}}.

    Args:
        params: Those of the pipeline.
        pools: Numbers of examples to choose from.

    Raises:
        UserError: The encoder is missing, or the policy picks fewer than `SHOTS`.
    """
    found = {}
    for pool in pools:
        with TemporaryDirectory() as folder, on_threads(1):
            made = make(Path(folder), params, pool, QUERIES)
            found[f"{SHOTS} of {pool}"] = measure(made, SHOTS)
    return found


def measure(made: Made, shots: int) -> dict[str, float]:
    """Return p50 and p95 of encoding and of choosing, one question at a time, in ms.

    Args:
        made: Selector, pool and questions.
        shots: How many are chosen.

    Returns:
        Also `choose_together_ms`: of one question where `TOGETHER` are chosen for at once.
    """
    selector = load_selector(made.checkpoint)
    selector.features.candidates(made.pool)
    encoding, choosing = [], []
    for query in made.queries:
        begun = time.perf_counter()
        selector.features.queries([query])
        encoded = time.perf_counter()
        select_all(selector, [query], [made.pool], shots)
        choosing.append(time.perf_counter() - encoded)
        encoding.append(encoded - begun)
    some = made.queries[:TOGETHER]
    begun = time.perf_counter()
    select_all(selector, some, [made.pool] * len(some), shots)
    together = (time.perf_counter() - begun) / len(some)
    return {
        "queries": len(made.queries),
        **percentiles(encoding, "encode"),
        **percentiles(choosing, "choose"),
        "choose_together_ms": round(1000 * together, 3),
    }
