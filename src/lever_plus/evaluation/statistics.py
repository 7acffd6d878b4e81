"""Bootstrap intervals over questions, for accuracies and for differences paired by question.

The bootstrap resamples images with all their questions, because questions about the same image are
not independent. These intervals do not cover differences between trainings, see `trainings`.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]
Clusters = NDArray[np.int64]
Draws = NDArray[np.float64] | NDArray[np.uint8] | NDArray[np.int64]
LEVEL = 0.95
"""Confidence level of all intervals."""
LARGEST_TABLE = 10_000_000
"""Up to so many numbers (resamples x clusters), the table of draws is kept as floats."""
LARGEST_KEPT = 400_000_000
"""Up to so many numbers the table is kept with one byte each; larger ones are drawn each time."""
PART = 2_000_000
"""How many numbers a part has if a table is not drawn at once."""


class Estimate(NamedTuple):
    """A mean, the bounds of its 95 % interval, and the two-sided p-value for a true mean of 0."""

    mean: float
    low: float
    high: float
    p: float


class Tally(NamedTuple):
    """Numbers of questions on which a method scores higher than another, lower, and the same."""

    wins: int
    losses: int
    ties: int


def bootstrap(
    scores: Scores, resamples: int, clusters: Clusters | None = None, seed: int = 0
) -> Estimate:
    """Return the mean of scores of n questions with a percentile bootstrap interval.

    The p-value is that of a normal distribution with the bootstrap standard error.

    Args:
        scores: Float [n], one value per question; paired differences give a paired interval.
        resamples: Number of resamples.
        clusters: Int [n], the cluster of each question, such as its image; clusters are resampled
            as a whole. None: each question is its own cluster.
        seed: Seed of the draws; equal seeds draw the same clusters.
    """
    means = resampled_means(scores, resamples, clusters, seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(scores.mean())
    return Estimate(mean, float(low), float(high), _p_value(mean, float(means.std())))


def resampled_means(
    scores: Scores, resamples: int, clusters: Clusters | None = None, seed: int = 0
) -> Scores:
    """Return the mean of each resample, float [resamples]; arguments as in `bootstrap`."""
    group = (
        np.arange(len(scores)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    )
    sums = np.bincount(group, scores).astype(np.float64)
    sizes = np.bincount(group).astype(np.float64)
    drawn = [totals(part, sums) for part in draws(len(sums), resamples, seed)]
    return np.concatenate(drawn) / _drawn_sizes(sizes.tobytes(), resamples, seed)


@lru_cache(maxsize=4)
def _drawn_sizes(sizes: bytes, resamples: int, seed: int) -> Scores:
    """Return the number of questions in each resample; all scores of a summary share these."""
    of_clusters = np.frombuffer(sizes, dtype=np.float64)
    parts = draws(len(of_clusters), resamples, seed)
    return np.concatenate([totals(part, of_clusters) for part in parts])


def draws(count: int, resamples: int, seed: int = 0) -> Iterator[Draws]:
    """Yield in parts how often each resample draws each cluster, [resamples, clusters]."""
    if count * resamples <= LARGEST_TABLE:
        yield _table(count, resamples, seed)
    elif count * resamples <= LARGEST_KEPT:
        yield _small_table(count, resamples, seed)
    else:
        yield from _drawn(count, resamples, seed)


def totals(part: Draws, values: Scores) -> Scores:
    """Return the sum of the drawn clusters' values in each resample, float [resamples]."""
    if part.dtype == np.float64:
        return np.asarray(part @ values)
    # einsum converts bytes in small blocks; a matrix product would need the table as floats.
    return np.asarray(np.einsum("rc,c->r", part, values))


def _drawn(count: int, resamples: int, seed: int) -> Iterator[Clusters]:
    """Draw in parts; together they equal the table drawn at once."""
    rng, rows = np.random.default_rng(seed), max(1, PART // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size)


@lru_cache(maxsize=2)
def _small_table(count: int, resamples: int, seed: int) -> NDArray[np.uint8]:
    """Return all draws with one byte each: none of thousands of clusters is drawn 256 times."""
    drawn = np.empty((resamples, count), dtype=np.uint8)
    row = 0
    for part in _drawn(count, resamples, seed):
        drawn[row : row + len(part)] = part
        row += len(part)
    return drawn


@lru_cache(maxsize=2)
def _table(count: int, resamples: int, seed: int) -> Scores:
    """Return all draws; all accuracies of a summary use the same ones."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn.astype(np.float64)


def _p_value(mean: float, error: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.norm.sf(abs(mean) / error))


def paired(
    scores: Scores,
    versus: Scores,
    resamples: int,
    clusters: Clusters | None = None,
    seed: int = 0,
) -> Estimate:
    """Return the mean of `scores - versus` over the same questions; arguments as in `bootstrap`."""
    if scores.shape != versus.shape:
        raise ValueError(f"paired scores differ in shape: {scores.shape} and {versus.shape}")
    return bootstrap(scores - versus, resamples, clusters, seed)


def tally(scores: Scores, versus: Scores) -> Tally:
    """Count wins, losses and ties of `scores` against `versus` over the same questions."""
    sign = np.sign(np.round(scores - versus, 9))
    return Tally(int((sign > 0).sum()), int((sign < 0).sum()), int((sign == 0).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for the number of comparisons (Holm 1979), in the same order."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(raised, 1.0)
    return [float(value) for value in corrected]
