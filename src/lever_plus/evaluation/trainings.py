"""Intervals over training runs and questions, and how many of each a difference needs.

Runs and questions are crossed: all runs answer the same questions. The mean over both varies for
two reasons: with other runs, and with other questions (images with all their questions). The two
variances are estimated separately, because a few runs say little about theirs; the noise of a
single run on a single question is counted once, with the runs. Half the length of the interval is
the square root of the sum of t^2 V over both, where V is a variance of the mean and t is Student's
quantile with the degrees of freedom of that variance (method of variance estimates recovery: Howe
1974; Zou and Donner 2008).

In simulations without a true difference it keeps its 5 % level even with two runs. Student's t with
Satterthwaite's degrees of freedom reports a difference in up to 13 of 100 comparisons, and a
bootstrap of questions alone in up to 80.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from lever_plus.evaluation.statistics import LEVEL, Clusters, Estimate, Scores

POWER = 0.8
"""The power that planning aims at: the share of true differences that are found."""
MOST_TRAININGS = 30
"""Largest number of trainings that planning suggests."""
MOST_QUESTIONS = 10_000_000
"""Largest number of questions that planning suggests."""
SMALLEST_P = 1e-15
"""Smaller p-values are given as 0."""


class Runs(NamedTuple):
    """What training adds to the variance of a mean.

    number: number of runs; variance: variance of the mean, estimated from the runs' means; noise:
    the part of `variance` that is noise of single runs on single questions.
    """

    number: int
    variance: float
    noise: float


class Mean(NamedTuple):
    """A mean over runs and questions, with the variances that it has.

    value: the mean; runs: one entry for each independent set of runs; variance: variance of the
    mean over images; images: number of images; questions: number of questions about them.
    """

    value: float
    runs: tuple[Runs, ...]
    variance: float
    images: int
    questions: int


class Spread(NamedTuple):
    """Standard deviations of a difference, in the scores' unit, for planning.

    trainings: between runs, with infinitely many questions; questions: between questions, with
    infinitely many runs; noise: of a single run on a single question.
    """

    trainings: float
    questions: float
    noise: float


def over_runs(
    differences: Scores, clusters: Clusters, comparisons: int = 1, repeated: int = 1
) -> Estimate:
    """Return a mean over training runs and questions, with an interval that covers both.

    Args:
        differences: Float [runs, n] in [-1, 1], paired differences or scores.
        clusters: Int [n], the cluster of each question, such as its image.
        comparisons: Among how many such means on these questions the best was chosen.
        repeated: Among how many such means on these runs the best was chosen; fewer if the chosen
            one was trained again for this.

    Returns:
        The mean, with interval and p-value corrected for the comparisons (Bonferroni). With one run
        or one image the variance is unknown: the interval is [-1, 1], and p is 1.
    """
    if len(differences) < 2 or len(np.unique(clusters)) < 2:
        return Estimate(float(differences.mean()), -1.0, 1.0, 1.0)
    found = measured([differences], differences.mean(axis=0), clusters)
    return estimate(found, comparisons, repeated)


def measured(varying: Sequence[Scores], means: Scores, clusters: Clusters) -> Mean:
    """Return a mean over runs and questions, with the variances that it has.

    Args:
        varying: Scores of independent sets of runs, float [runs, n] each, with at least two runs.
            Two methods with paired runs are one set, with their differences.
        means: Float [n], for each question the mean over runs, or the difference of two means.
        clusters: Int [n], the cluster of each question, such as its image; at least two clusters.
    """
    group, questions = np.unique(clusters, return_inverse=True)[1], len(means)
    images = int(group.max()) + 1
    whole = _variance(means - means.mean(), group, images)
    runs = tuple(_runs(scores, group, images) for scores in varying)
    rest = max(0.0, whole - sum(each.noise for each in runs))
    return Mean(float(means.mean()), runs, rest, images, questions)


def _variance(centred: Scores, group: Clusters, images: int) -> float:
    """Return the variance of the mean of centred values, with images as clusters."""
    sums = np.bincount(group, centred)
    return float(sums @ sums) / len(centred) ** 2 * images / (images - 1)


def _runs(scores: Scores, group: Clusters, images: int) -> Runs:
    count, by_run = len(scores), scores.mean(axis=1)
    rest = scores - by_run[:, None] - scores.mean(axis=0) + by_run.mean()
    noise = sum(_variance(row, group, images) for row in rest) / (count - 1) / count
    return Runs(count, float(by_run.var(ddof=1)) / count, noise)


def estimate(mean: Mean, comparisons: int = 1, repeated: int = 1) -> Estimate:
    """Return a mean with the interval and p-value that cover all its variances.

    Args:
        mean: The mean and its variances.
        comparisons: See `over_runs`.
        repeated: See `over_runs`.
    """
    if not mean.variance and not any(runs.variance for runs in mean.runs):
        return Estimate(mean.value, mean.value, mean.value, float(mean.value == 0))

    def reach(level: float) -> float:
        parts = [_squared(level / comparisons, mean.images - 1) * mean.variance]
        parts += [_squared(level / repeated, r.number - 1) * r.variance for r in mean.runs]
        return float(np.sqrt(sum(parts)))

    def beyond(log_level: float) -> float:
        return reach(np.exp(log_level)) - abs(mean.value)

    half, bounds = reach(1 - LEVEL), (np.log(SMALLEST_P), 0.0)
    if beyond(bounds[0]) <= 0:
        p = 0.0
    elif beyond(bounds[1]) >= 0:
        p = 1.0
    else:
        p = float(np.exp(optimize.brentq(beyond, *bounds, xtol=1e-6)))
    return Estimate(mean.value, mean.value - half, mean.value + half, p)


def _squared(level: float, freedom: int) -> float:
    """Return the square of Student's two-sided quantile at a level."""
    return float(special.stdtrit(freedom, level / 2)) ** 2


def spread_of(mean: Mean) -> Spread:
    """Return the standard deviations behind a mean; that of trainings is 0 if noise explains it."""
    between = sum(r.number * max(0.0, r.variance - r.noise) for r in mean.runs)
    noise = sum(r.number * mean.questions * r.noise for r in mean.runs)
    return Spread(*map(float, np.sqrt([between, mean.questions * mean.variance, noise])))


def power(spread: Spread, delta: float, runs: int, questions: int, level: float = 0.05) -> float:
    """Return the power of a test: how often a true difference is found, in [0, 1].

    Args:
        spread: The standard deviations of the difference.
        delta: The true difference, in the same unit.
        runs: Trainings of each method, at least two; 0 if nothing is trained, or if the variance of
            trainings is not counted.
        questions: Number of questions that both methods answer.
        level: Level of the two-sided test.
    """
    of_questions = spread.questions**2 / questions
    of_runs = (spread.trainings**2 + spread.noise**2 / questions) / runs if runs else 0.0
    error = np.sqrt(of_runs + of_questions)
    if not error:
        return float(delta > 0)
    squares = _squared(level, questions - 1) * of_questions
    if runs:
        # With few runs the estimated variance is often far from the true one: average over it.
        drawn = stats.chi2.ppf((np.arange(400) + 0.5) / 400, runs - 1) / (runs - 1)
        squares = squares + _squared(level, runs - 1) * drawn * of_runs
    return float(np.mean(stats.norm.cdf((delta - np.sqrt(squares)) / error)))


def questions_needed(
    spread: Spread, delta: float, runs: int = 0, level: float = 0.05
) -> int | None:
    """Return with how many questions a difference is found with 80 % power.

    None if more than MOST_QUESTIONS would be needed.
    """
    return _fewest(lambda n: power(spread, delta, runs, n, level), 2, MOST_QUESTIONS)


def trainings_needed(
    spread: Spread, delta: float, questions: int, level: float = 0.05
) -> int | None:
    """Return with how many trainings a difference is found with 80 % power.

    None if more than MOST_TRAININGS would be needed.
    """
    return _fewest(lambda runs: power(spread, delta, runs, questions, level), 2, MOST_TRAININGS)


def smallest_difference(spread: Spread, runs: int, questions: int) -> float:
    """Return the smallest true difference found with 80 % power, in the spread's unit."""
    largest = 1e3 * max(spread)
    if not largest:
        return 0.0
    found = optimize.brentq(lambda d: power(spread, d, runs, questions) - POWER, 0, largest)
    return float(found)


def _fewest(found: Callable[[int], float], low: int, high: int) -> int | None:
    """Return the smallest number with enough power; the power grows with the number."""
    if found(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= POWER else (middle + 1, high)
    return low
