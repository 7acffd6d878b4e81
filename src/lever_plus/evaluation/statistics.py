"""Intervals: every accuracy with its noise, every difference paired by question.

The bootstrap resamples questions; scores of several training seeds are averaged per question first,
and the spread over seeds is reported beside the interval.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(scores: Scores, resamples: int, seed: int = 0) -> Estimate:
    """Return mean and percentile bootstrap interval of scores of n questions.

    Args:
        scores: One value a question, float [n]; paired differences give a paired interval.
        resamples: Number of resamples.
        seed: Equal seeds resample the same questions.
    """
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(scores, len(scores)).mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(scores.mean()), float(low), float(high))


def paired(scores: Scores, versus: Scores, resamples: int, seed: int = 0) -> Estimate:
    """Return the mean difference `scores - versus` over the same questions, with its interval."""
    if scores.shape != versus.shape:
        raise ValueError(f"paired scores differ in shape: {scores.shape} and {versus.shape}")
    return bootstrap(scores - versus, resamples, seed)
