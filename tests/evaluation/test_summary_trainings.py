"""The summary of trained methods: intervals over trainings, pairs by seed, one correction."""

import numpy as np
import pandas as pd
import pytest

from lever_plus.evaluation.methods import Method, Methods
from lever_plus.evaluation.scored import Row, corrected
from lever_plus.evaluation.statistics import bootstrap, holm
from lever_plus.evaluation.summary import summarise
from lever_plus.evaluation.trainings import over_runs

QUESTIONS = 60
IMAGES = np.arange(QUESTIONS) // 2
KINDS = {"sft": "trained", "rce": "trained", "sttr": "similarity", "random": "baseline"}
REGISTRY = Methods(Method(name, "x", kind, "a method") for name, kind in KINDS.items())  # type: ignore[arg-type]


def table(method: str, seeds: list[int], mean: float) -> pd.DataFrame:
    """Return scores at one shot; those of a seed are shifted by the seed."""
    rng = np.random.default_rng(seeds)
    scores = [
        np.clip(rng.normal(mean + 0.02 * seed, 0.1, QUESTIONS), 0, 1) for seed in range(len(seeds))
    ]
    return pd.DataFrame(
        {
            "method": method,
            "seed": np.repeat(seeds, QUESTIONS),
            "query_id": np.tile(np.arange(QUESTIONS), len(seeds)),
            "image_id": np.tile(IMAGES, len(seeds)),
            "shot": 1,
            "vqa_acc_score": np.concatenate(scores),
        }
    )


def scores_of(part: pd.DataFrame) -> np.ndarray:
    return part["vqa_acc_score"].to_numpy().reshape(-1, QUESTIONS)


def differences(*tables: pd.DataFrame, versus: str = "sft") -> dict[str, Row]:
    found = summarise(pd.concat(tables), REGISTRY, 300, versus=[versus])["differences"]
    return {row["method"]: row for row in found if row["shots"] == 1}


def test_accuracies_of_trained_methods_cover_their_trainings() -> None:
    """Those of random draws and of a single training cover questions; the latter is marked."""
    tables = {
        "sft": table("sft", [1], 0.5),
        "rce": table("rce", [1, 2, 3], 0.5),
        "random": table("random", [0, 1, 2], 0.3),
    }
    found = {
        row["method"]: row for row in summarise(pd.concat(tables.values()), REGISTRY, 300)["rows"]
    }
    expected = {name: scores_of(part) for name, part in tables.items()}
    estimates = {
        "sft": bootstrap(expected["sft"][0], 300, IMAGES),
        "rce": over_runs(expected["rce"], IMAGES),
        "random": bootstrap(expected["random"].mean(axis=0), 300, IMAGES),
    }
    for name, estimate in estimates.items():
        assert found[name]["ci95"] == pytest.approx([estimate.low, estimate.high], abs=1e-6)
    assert {name: row["one_training"] for name, row in found.items()} == {
        **{"sft": True, "rce": False, "random": False}
    }


def test_trainings_with_the_same_seeds_are_paired() -> None:
    """A seed with which both do well says nothing about their difference."""
    sft, rce = table("sft", [1, 2, 3], 0.4), table("rce", [3, 2, 1], 0.5)
    row = differences(sft, rce)["rce"]
    ours, theirs = scores_of(rce)[::-1], scores_of(sft)
    paired = over_runs(ours - theirs, IMAGES)
    assert row["ci95"] == pytest.approx([paired.low, paired.high], abs=1e-6)
    assert (row["trainings"], row["one_training"]) == (3, False)


def test_trainings_with_other_seeds_each_have_a_spread_of_their_own() -> None:
    sft, rce = table("sft", [4, 5, 6, 7], 0.4), table("rce", [1, 2, 3], 0.5)
    row = differences(sft, rce)["rce"]
    own = [part.var(ddof=1) / len(part) for part in (scores_of(p).mean(1) for p in (sft, rce))]
    width = (row["ci95"][1] - row["ci95"][0]) / 2
    assert width > np.sqrt(3.18**2 * own[0] + 4.3**2 * own[1])
    assert row["trainings"] == 3


def test_to_a_method_that_is_not_trained_a_difference_has_the_spread_of_the_one_that_is() -> None:
    rce, sttr, sft = table("rce", [1, 2], 0.5), table("sttr", [0], 0.3), table("sft", [9], 0.4)
    found = differences(rce, sttr, sft, versus="rce")
    own = over_runs(scores_of(sttr) - scores_of(rce), IMAGES)
    assert found["sttr"]["ci95"] == pytest.approx([own.low, own.high], abs=1e-6)
    assert (found["sttr"]["trainings"], found["sttr"]["one_training"]) == (2, False)
    assert (found["sft"]["trainings"], found["sft"]["one_training"]) == (2, True)
    alone = differences(sttr, sft)["sttr"]
    assert (alone["trainings"], alone["one_training"]) == (0, True)


def test_p_values_are_corrected_for_all_that_a_table_compares() -> None:
    """Both references are counted; a pair that appears in both directions is one comparison."""
    tables = [table("sft", [1, 2, 3], 0.4), table("rce", [1, 2, 3], 0.42)]
    tables += [table("sttr", [0], 0.41), table("random", [0, 1], 0.3)]
    found = summarise(pd.concat(tables), REGISTRY, 300, versus=["sft", "rce"])["differences"]
    rows = [row for row in found if row["shots"] == "mean"]
    assert len(rows) == 6
    distinct = {frozenset((row["method"], row["versus"])): row for row in rows}
    assert len(distinct) == 5
    expected = dict(zip(distinct, holm([row["p"] for row in distinct.values()]), strict=True))
    for row in rows:
        pair = frozenset((row["method"], row["versus"]))
        assert row["p_holm"] == pytest.approx(expected[pair], abs=1e-5)
        assert row["separable"] == (row["p_holm"] < 0.05)


def test_gains_are_corrected_for_the_demonstrations_of_their_method() -> None:
    sft, rce = table("sft", [1, 2, 3], 0.4), table("rce", [1, 2, 3], 0.42)
    shots = [sft.assign(shot=k, vqa_acc_score=sft["vqa_acc_score"] ** k) for k in (1, 2, 3)]
    shots += [rce.assign(shot=k) for k in (1, 2, 3)]
    gains = summarise(pd.concat(shots), REGISTRY, 300)["gains"]
    for method in ("sft", "rce"):
        own = [row for row in gains if row["method"] == method]
        expected = holm([row["p"] for row in own])
        assert len(own) == 2
        assert [row["p_holm"] for row in own] == pytest.approx(expected, abs=1e-5)


def test_what_is_called_different_follows_the_corrected_p_value() -> None:
    """The interval alone would call it different; among five comparisons it is not."""
    spread = {"trainings": 0.0, "questions": 0.2, "noise": 0.0}
    one = {"difference": 0.02, "p": 0.03, "n": 500, "trainings": 0, "spread": spread}
    assert corrected([one])[0]["separable"]
    assert not any(row["separable"] for row in corrected([one] * 5))
    assert all(row["separable"] for row in corrected([one] * 5, ["the same"] * 5))


def test_what_so_few_trainings_do_not_settle_says_how_many_would() -> None:
    spread = {"trainings": 0.01, "questions": 0.2, "noise": 0.1}
    row = {"difference": 0.04, "p": 0.2, "n": 1000, "trainings": 3, "spread": spread}
    (alone,), many = corrected([row]), corrected([row] * 4)
    assert alone["trainings_needed"] == 4
    assert many[0]["trainings_needed"] > 4
    assert corrected([{**row, "difference": 0.005}])[0]["trainings_needed"] is None
    assert corrected([{**row, "trainings": 0}])[0]["trainings_needed"] is None
