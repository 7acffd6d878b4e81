"""Intervals cover, clusters count as one, and an A/A comparison finds nothing."""

import tracemalloc

import numpy as np
import pytest

from lever_plus.evaluation import statistics
from lever_plus.evaluation.statistics import (
    bootstrap,
    holm,
    paired,
    tally,
)


def test_questions_about_one_image_count_as_one_observation() -> None:
    """Ten copies of every question do not make an interval narrower."""
    rng = np.random.default_rng(0)
    scores = rng.random(60)
    alone = bootstrap(scores, 2000)
    copies, images = np.repeat(scores, 10), np.repeat(np.arange(60), 10)
    together = bootstrap(copies, 2000, images)
    assert together.low == pytest.approx(alone.low, abs=0.01)
    assert together.high == pytest.approx(alone.high, abs=0.01)
    naive = bootstrap(copies, 2000)
    assert naive.high - naive.low < 0.5 * (together.high - together.low)


def test_images_of_different_sizes_keep_the_mean_over_questions() -> None:
    scores, images = np.array([0.0, 1.0, 1.0, 1.0]), np.array([7, 7, 7, 9])
    assert bootstrap(scores, 200, images).mean == 0.75


def test_an_a_a_comparison_covers_zero_about_95_times_in_100() -> None:
    """The same method with two seeds: differences are noise of single questions."""
    rng = np.random.default_rng(1)
    covered, significant, trials = 0, 0, 400
    for trial in range(trials):
        ability = rng.random(200)
        first, second = (rng.random(200) < ability for _ in range(2))
        estimate = paired(first * 1.0, second * 1.0, 400, seed=trial)
        covered += estimate.low <= 0 <= estimate.high
        significant += estimate.p < 0.05
    assert 0.92 <= covered / trials <= 0.98
    assert 0.02 <= significant / trials <= 0.08


def test_clustered_intervals_cover_where_naive_ones_do_not() -> None:
    rng = np.random.default_rng(2)
    images = np.repeat(np.arange(50), 4)
    covered = {"clustered": 0, "naive": 0}
    for trial in range(200):
        scores = np.repeat(rng.normal(size=50), 4) + 0.3 * rng.normal(size=200)
        for name, clusters in (("clustered", images), ("naive", None)):
            estimate = bootstrap(scores, 400, clusters, seed=trial)
            covered[name] += estimate.low <= 0 <= estimate.high
    assert covered["clustered"] >= 180
    assert covered["naive"] < 150


def test_wins_losses_and_ties_are_counted() -> None:
    ours, theirs = np.array([1.0, 0.3, 0.3, 0.0]), np.array([0.0, 0.3, 0.1 * 3, 0.6])
    assert tally(ours, theirs) == (1, 1, 2)


def test_holm_corrects_step_by_step_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("kept", [1_000_000, 500], ids=["kept in bytes", "not kept"])
def test_draws_in_parts_are_those_of_one_table(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Data that are too large for one table give the same interval, up to the order of sums."""
    scores = np.random.default_rng(4).random(50)
    clusters = np.arange(50) // 3
    whole = bootstrap(scores, 300, clusters, seed=9)
    monkeypatch.setattr(statistics, "LARGEST_TABLE", 500)
    monkeypatch.setattr(statistics, "LARGEST_KEPT", kept)
    monkeypatch.setattr(statistics, "PART", 700)
    assert bootstrap(scores, 300, clusters, seed=9) == pytest.approx(whole, rel=1e-12)


def test_many_questions_take_no_more_than_a_byte_a_draw() -> None:
    """A table of all draws in 8 bytes would have 88 MB here."""
    scores = np.random.default_rng(4).random(5_500)
    tracemalloc.start()
    bootstrap(scores, 2_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45e6


def test_equal_sums_of_images_of_other_sizes_are_not_taken_for_one_another() -> None:
    """The resamples of a set of images are kept, but are not used for another set."""
    scores = np.array([1.0, 0.0, 0.0, 1.0])
    few, many = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    first, second = bootstrap(scores, 500, few), bootstrap(scores, 500, many)
    statistics._drawn_sizes.cache_clear()
    assert (bootstrap(scores, 500, many), bootstrap(scores, 500, few)) == (second, first)
    drawn = np.random.default_rng(0).multinomial(2, [0.5, 0.5], size=500)
    means = (drawn @ [1.0, 1.0]) / (drawn @ [3.0, 1.0])
    assert first.low == pytest.approx(np.quantile(means, 0.025))
