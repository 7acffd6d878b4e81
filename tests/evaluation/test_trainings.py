"""Intervals over training runs and questions: A/A trainings, a choice among many, planning."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lever_plus.evaluation.statistics import Clusters, bootstrap
from lever_plus.evaluation.trainings import (
    Spread,
    measured,
    over_runs,
    power,
    questions_needed,
    smallest_difference,
    spread_of,
    trainings_needed,
)

QUESTIONS, IMAGES, SEEDS = 120, 40, 3
CLUSTERS = np.arange(QUESTIONS) % IMAGES
Noise = NDArray[np.float64]


def accepted(rng: np.random.Generator, among: int, comparisons: int, effect: float = 0.0) -> bool:
    """Choose the three best of some trials on dev, repeat them on fresh seeds, accept the best.

    No trial is better than the baseline by more than `effect`. Images suit some trials and not
    others, training runs differ, and single answers are noise.
    """
    suits = rng.normal(0, 0.3, (among, IMAGES))[:, CLUSTERS]

    def run(trial: int) -> Noise:
        luck = rng.normal(0, 0.02) + rng.normal(0, 0.2, QUESTIONS)
        return np.asarray(effect + suits[trial] + luck, dtype=np.float64)

    on_dev = [np.mean([run(trial).mean() for _ in range(2)]) for trial in range(among)]
    best = np.argsort(on_dev)[-3:]
    repeated = [
        over_runs(np.stack([run(trial) for _ in range(SEEDS)]), CLUSTERS, comparisons, len(best))
        for trial in best
    ]
    return max(repeated, key=lambda estimate: estimate.mean).low > 0


@pytest.mark.parametrize("among", [3, 30])
def test_at_most_one_in_twenty_studies_without_a_better_trial_promotes_one(among: int) -> None:
    rng = np.random.default_rng(among)
    false = [accepted(rng, among, comparisons=among) for _ in range(400)]
    assert np.mean(false) <= 0.05


def test_a_choice_that_is_not_corrected_promotes_too_often() -> None:
    """So does one corrected for the repeated trials only: all trials were compared on dev."""
    rng = np.random.default_rng(1)
    assert np.mean([accepted(rng, 30, comparisons=1) for _ in range(200)]) > 0.1
    assert np.mean([accepted(rng, 30, comparisons=3) for _ in range(200)]) > 0.05


def test_a_trial_that_is_clearly_better_is_promoted() -> None:
    rng = np.random.default_rng(2)
    assert np.mean([accepted(rng, 30, comparisons=30, effect=0.3) for _ in range(100)]) > 0.9


def drawn(
    rng: np.random.Generator, runs: int, questions: int, between: float, effect: float = 0.0
) -> tuple[Noise, Clusters]:
    """Return differences of two trained methods, [runs, n], and the images of the questions.

    Sizes are those of two policies on the test questions: differences of single questions have a
    standard deviation of 25 points, those of a single training on one question 20. Some images have
    two questions, which are answered alike.

    Args:
        rng: Of all that is drawn.
        runs: Trainings of each.
        questions: Of the test.
        between: Standard deviation between trainings.
        effect: The true difference.
    """
    images = 4 * questions // 5
    clusters = np.arange(questions) % images
    of_images = rng.normal(0, 0.2, images)[clusters] + rng.normal(0, 0.15, questions)
    of_runs = rng.normal(0, between, (runs, 1)) + rng.normal(0, 0.2, (runs, questions))
    return effect + of_images + of_runs, clusters


def found(rng: np.random.Generator, trials: int, *size: float) -> float:
    """Return the share of simulated comparisons with an interval without 0."""
    runs, questions, *rest = size
    estimates = [over_runs(*drawn(rng, int(runs), int(questions), *rest)) for _ in range(trials)]
    assert all((e.low > 0 or e.high < 0) == (e.p < 0.05) for e in estimates)
    return float(np.mean([e.low > 0 or e.high < 0 for e in estimates]))


@pytest.mark.parametrize("questions", [300, 1000])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_a_a_trainings_are_called_different_in_at_most_5_of_100_cases(
    runs: int, questions: int
) -> None:
    """Two methods of equal expected accuracy, whose runs differ not at all to very much.

    At a true rate of 5 %, 22 or more of 250 cases are called different once in a hundred tests.
    """
    rng = np.random.default_rng(runs * questions)
    for between in (0.0, 0.01, 0.03, 0.1):
        assert found(rng, 250, runs, questions, between) <= 21 / 250


def test_intervals_over_questions_alone_call_a_a_trainings_different() -> None:
    """If runs differ by 2 points, in every third case."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        differences, clusters = drawn(rng, 3, 1000, 0.02)
        estimate = bootstrap(differences.mean(axis=0), 300, clusters)
        wrong += estimate.low > 0 or estimate.high < 0
    assert wrong / 200 > 0.2


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_true_differences_are_found_as_often_as_planned(runs: int) -> None:
    """In four of five cases; with two runs, only large differences are found."""
    rng = np.random.default_rng(runs)
    many = drawn(rng, 200, 3000, 0.01)[0]
    spread = spread_of(measured([many], many.mean(axis=0), np.arange(3000)))
    assert spread.trainings == pytest.approx(0.01, abs=0.003)
    assert spread.noise == pytest.approx(0.2, abs=0.01)
    sizes = Spread(0.01, np.sqrt(0.15**2 + 1.5 * 0.2**2), 0.2)
    delta = smallest_difference(sizes, runs, 1000)
    assert {2: 0.1, 3: 0.04, 5: 0.028}[runs] < delta < {2: 0.16, 3: 0.06, 5: 0.04}[runs]
    assert found(rng, 200, runs, 1000, 0.01, delta) == pytest.approx(0.8, abs=0.09)


def test_images_are_taken_whole() -> None:
    """Repeating a question adds no evidence; if counted singly, it would seem to."""
    one = np.random.default_rng(3).normal(0.1, 0.3, 60)
    both = np.stack([np.tile(one, 4)] * 2)
    whole = over_runs(both, np.tile(np.arange(60), 4))
    single = over_runs(both, np.arange(240))
    assert whole.high - whole.low == pytest.approx(2 * (single.high - single.low), rel=0.03)
    alone = bootstrap(both[0], 4000, np.tile(np.arange(60), 4))
    assert whole.high - whole.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_training_runs_are_part_of_the_interval() -> None:
    questions = np.random.default_rng(4).normal(0.1, 0.3, 200)
    alike = over_runs(np.stack([questions, questions]), np.arange(200))
    apart = over_runs(np.stack([questions - 0.05, questions + 0.05]), np.arange(200))
    assert apart.mean == pytest.approx(alike.mean)
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_noise_of_single_answers_is_counted_once() -> None:
    """Runs differ by chance alone, so the interval is Student's t over their means."""
    noise = np.random.default_rng(5).normal(0, 0.3, (4, 500))
    means = noise.mean(axis=1)
    estimate = over_runs(noise, np.arange(500))
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.006)


def test_what_does_not_vary_is_certain() -> None:
    for value, p in ((0.25, 0.0), (0.0, 1.0)):
        estimate = over_runs(np.full((3, 9), value), np.arange(9))
        assert estimate == (value, value, value, p)


def test_what_can_t_tell_how_much_it_varies_proves_nothing() -> None:
    for estimate in (
        over_runs(np.full((1, 9), 0.5), np.arange(9)),
        over_runs(np.full((3, 9), 0.5), np.zeros(9, dtype=np.int64)),
    ):
        assert (estimate.low, estimate.high, estimate.p) == (-1.0, 1.0, 1.0)


def test_without_trainings_power_is_the_textbook_s() -> None:
    """A standard deviation of 30 points and 0.5 points: 28,256 questions."""
    spread = Spread(0.0, 30.0, 0.0)
    needed = questions_needed(spread, 0.5)
    assert needed == pytest.approx(28256, abs=4)
    assert smallest_difference(spread, 0, 28256) == pytest.approx(0.5, rel=1e-3)
    assert smallest_difference(Spread(0.0, 0.0, 0.0), 3, 100) == 0


def test_what_is_needed_is_enough_and_one_less_is_not() -> None:
    spread = Spread(1.0, 25.0, 20.0)
    questions, trainings = questions_needed(spread, 4.0, 3), trainings_needed(spread, 3.0, 1000)
    assert questions
    assert trainings
    assert power(spread, 4.0, 3, questions) >= 0.8 > power(spread, 4.0, 3, questions - 1)
    assert power(spread, 3.0, trainings, 1000) >= 0.8 > power(spread, 3.0, trainings - 1, 1000)
    assert questions_needed(spread, 2.0, 2) is None
    assert trainings_needed(spread, 1.0, 1000) is None
