"""The interval over training runs and questions, and the choice among many."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lever_plus.evaluation.statistics import over_runs

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
        over_runs(np.stack([run(trial) for _ in range(SEEDS)]), CLUSTERS, 200, comparisons)
        for trial in best
    ]
    return max(repeated, key=lambda estimate: estimate.mean).low > 0


@pytest.mark.parametrize("among", [3, 30])
def test_at_most_one_in_twenty_studies_without_a_better_trial_promotes_one(among: int) -> None:
    rng = np.random.default_rng(among)
    false = [accepted(rng, among, comparisons=among) for _ in range(400)]
    assert np.mean(false) <= 0.05


def test_a_choice_that_is_not_corrected_promotes_too_often() -> None:
    """Nor one that is corrected for the repeated trials alone: all were chosen on dev."""
    rng = np.random.default_rng(1)
    assert np.mean([accepted(rng, 30, comparisons=1) for _ in range(200)]) > 0.2
    assert np.mean([accepted(rng, 30, comparisons=3) for _ in range(200)]) > 0.05


def test_a_trial_that_is_clearly_better_is_promoted() -> None:
    rng = np.random.default_rng(2)
    assert np.mean([accepted(rng, 30, comparisons=30, effect=0.3) for _ in range(100)]) > 0.9


def test_images_are_resampled_whole() -> None:
    """Questions that say the same twice say nothing more; seen as single ones they would."""
    one = np.random.default_rng(3).normal(0.1, 0.3, 60)
    both = np.stack([np.tile(one, 4)] * 2)
    whole = over_runs(both, np.tile(np.arange(60), 4), 2000)
    single = over_runs(both, np.arange(240), 2000)
    assert whole.high - whole.low == pytest.approx(2 * (single.high - single.low), rel=0.1)


def test_training_runs_are_part_of_the_interval() -> None:
    questions = np.random.default_rng(4).normal(0.1, 0.3, 200)
    alike = over_runs(np.stack([questions, questions]), np.arange(200), 1000)
    apart = over_runs(np.stack([questions - 0.05, questions + 0.05]), np.arange(200), 1000)
    assert apart.mean == pytest.approx(alike.mean)
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_what_can_t_tell_how_much_it_varies_proves_nothing() -> None:
    for found in (
        over_runs(np.full((1, 9), 0.5), np.arange(9), 100),
        over_runs(np.full((3, 9), 0.5), np.zeros(9, dtype=np.int64), 100),
    ):
        assert (found.low, found.high, found.p) == (-1.0, 1.0, 1.0)
