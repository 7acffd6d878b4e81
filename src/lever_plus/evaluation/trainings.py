"""Intervals over training runs and questions, and how many of both a difference needs.

Runs and questions are crossed: every run answers the same questions. The mean over both varies for
two reasons: other runs would have other means, and other questions other ones (images with all
their questions). Each variance is estimated on its own, a few runs tell little about theirs, and
noise of a single run on a single question is counted once, with the runs. The interval's half
length is the root of the sum of t^2 V over both, each with the t of its own degrees of freedom
(variance estimates recovered: Howe 1974; Zou and Donner 2008). In simulation it holds its level
with two runs too, where Student's t with Satterthwaite's degrees of freedom finds differences in up
to 13 of 100 comparisons without any, and a bootstrap of questions alone in up to 80.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from lever_plus.evaluation.statistics import LEVEL, Clusters, Estimate, Scores

POWER = 0.8
"""Share of the true differences that planning wants found."""
MOST_TRAININGS = 30
MOST_QUESTIONS = 10_000_000
"""What is more is not planned."""
SMALLEST_P = 1e-15


class Runs(NamedTuple):
    """What training adds to the variance of a mean.

    number: of runs; variance: of the mean, as the runs' means say; noise: the part of it that is
    noise of single runs on single questions.
    """

    number: int
    variance: float
    noise: float


class Mean(NamedTuple):
    """A mean over runs and questions with all that it varies by.

    runs: one entry for each set of runs that differ independently of the others; variance: of the
    mean with other images; images: how many there are; questions: how many they ask.
    """

    value: float
    runs: tuple[Runs, ...]
    variance: float
    images: int
    questions: int


class Spread(NamedTuple):
    """Standard deviations of a difference, in the scores' unit, for planning.

    trainings: between runs, were the questions endless; questions: between questions, were the runs
    endless; noise: of a single run on a single question.
    """

    trainings: float
    questions: float
    noise: float


def over_runs(
    differences: Scores, clusters: Clusters, comparisons: int = 1, repeated: int = 1
) -> Estimate:
    """Return a mean over training runs and questions, with an interval that covers both.

    Args:
        differences: Paired differences, or scores, float [runs, n], in [-1, 1].
        clusters: What belongs together, such as the image of each question, int [n].
        comparisons: How many such means were seen on these questions, for the best to be chosen.
        repeated: How many were seen on these runs: fewer, where the chosen ones are trained afresh.

    Returns:
        The mean, its interval and p-value, both corrected for the comparisons (Bonferroni). With
        one run, or one image, nothing tells how much it varies: all that a difference can be.
    """
    if len(differences) < 2 or len(np.unique(clusters)) < 2:
        return Estimate(float(differences.mean()), -1.0, 1.0, 1.0)
    found = measured([differences], differences.mean(axis=0), clusters)
    return estimate(found, comparisons, repeated)


def measured(varying: Sequence[Scores], means: Scores, clusters: Clusters) -> Mean:
    """Return a mean over runs and questions with all that it varies by.

    Args:
        varying: Scores of runs that vary independently of each other, float [runs, n] each, of two
            runs at least. Two methods whose runs belong together are one, of their differences.
        means: The mean over runs, or the difference of two such, by question, float [n].
        clusters: What belongs together, such as the image of each question, int [n]; at least two.
    """
    group, questions = np.unique(clusters, return_inverse=True)[1], len(means)
    images = int(group.max()) + 1
    whole = _variance(means - means.mean(), group, images)
    runs = tuple(_runs(scores, group, images) for scores in varying)
    rest = max(0.0, whole - sum(each.noise for each in runs))
    return Mean(float(means.mean()), runs, rest, images, questions)


def _variance(centred: Scores, group: Clusters, images: int) -> float:
    """Return the variance of the mean of values that are centred, images drawn whole."""
    sums = np.bincount(group, centred)
    return float(sums @ sums) / len(centred) ** 2 * images / (images - 1)


def _runs(scores: Scores, group: Clusters, images: int) -> Runs:
    count, by_run = len(scores), scores.mean(axis=1)
    rest = scores - by_run[:, None] - scores.mean(axis=0) + by_run.mean()
    noise = sum(_variance(row, group, images) for row in rest) / (count - 1) / count
    return Runs(count, float(by_run.var(ddof=1)) / count, noise)


def estimate(mean: Mean, comparisons: int = 1, repeated: int = 1) -> Estimate:
    """Return a mean with the interval and p-value that cover all that it varies by."""
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
    """Return the square of Student's t, two-sided."""
    return float(special.stdtrit(freedom, level / 2)) ** 2


def spread_of(mean: Mean) -> Spread:
    """Return the standard deviations behind a mean; of what chance hides nothing is left."""
    between = sum(r.number * max(0.0, r.variance - r.noise) for r in mean.runs)
    noise = sum(r.number * mean.questions * r.noise for r in mean.runs)
    return Spread(*map(float, np.sqrt([between, mean.questions * mean.variance, noise])))


def power(spread: Spread, delta: float, runs: int, questions: int, level: float = 0.05) -> float:
    """Return the share of true differences that are found.

    Args:
        spread: Of the difference.
        delta: The true difference, in the same unit.
        runs: Trainings of each method, two at least; 0: nothing is trained, or it is not counted.
        questions: How many both answer.
        level: Of the test, two-sided.
    """
    of_questions = spread.questions**2 / questions
    of_runs = (spread.trainings**2 + spread.noise**2 / questions) / runs if runs else 0.0
    error = np.sqrt(of_runs + of_questions)
    if not error:
        return float(delta > 0)
    squares = _squared(level, questions - 1) * of_questions
    if runs:
        # Between few runs the measured variance is often far from the true one.
        drawn = stats.chi2.ppf((np.arange(400) + 0.5) / 400, runs - 1) / (runs - 1)
        squares = squares + _squared(level, runs - 1) * drawn * of_runs
    return float(np.mean(stats.norm.cdf((delta - np.sqrt(squares)) / error)))


def questions_needed(
    spread: Spread, delta: float, runs: int = 0, level: float = 0.05
) -> int | None:
    """Return how many questions show a true difference with a power of 80 %; None: no number."""
    return _fewest(lambda n: power(spread, delta, runs, n, level), 2, MOST_QUESTIONS)


def trainings_needed(
    spread: Spread, delta: float, questions: int, level: float = 0.05
) -> int | None:
    """Return how many trainings show a true difference with a power of 80 %; None: over 30."""
    return _fewest(lambda runs: power(spread, delta, runs, questions, level), 2, MOST_TRAININGS)


def smallest_difference(spread: Spread, runs: int, questions: int) -> float:
    """Return the true difference that is found with a power of 80 %, in the spread's unit."""
    largest = 1e3 * max(spread)
    if not largest:
        return 0.0
    found = optimize.brentq(lambda d: power(spread, d, runs, questions) - POWER, 0, largest)
    return float(found)


def _fewest(found: Callable[[int], float], low: int, high: int) -> int | None:
    """Return the smallest number with enough power, which grows with it."""
    if found(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= POWER else (middle + 1, high)
    return low
