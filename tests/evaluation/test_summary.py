"""The summary: right numbers, intervals that cover, differences paired by question."""

import json

import numpy as np
import pandas as pd
import pytest

from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.statistics import bootstrap, paired
from lever_plus.evaluation.summary import accuracies, summarise
from tiny_world import REGISTRY


def table(method: str, seed: int, scores: dict[int, list[float]]) -> pd.DataFrame:
    """Return a score table; scores[query] are the accuracies at shots 1, 2, ..."""
    rows = [
        Row(method, seed, query, query, shot, [], [], "x", 0, value, False)
        for query, values in scores.items()
        for shot, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows)


SFT = {1: [1.0, 0.0], 2: [0.3, 0.3], 3: [0.0, 0.6]}
RCE = {1: [1.0, 1.0], 2: [0.3, 0.3], 3: [0.6, 0.6]}


def test_accuracies_by_name_are_those_of_the_rows() -> None:
    zero = table("zero-shot", 0, SFT)
    zero = zero[zero["shot"] == 1].assign(shot=0)
    summary = summarise(pd.concat([zero, table("sft", 1, SFT)]), REGISTRY, 100)
    found = accuracies(summary)
    assert list(found["zero-shot"]) == ["shots_0"]
    assert list(found["sft"]) == ["shots_1", "shots_2", "mean"]
    assert found["sft"]["shots_2"] == pytest.approx((0.3 + 0.6) / 3, abs=1e-6)
    assert found["sft"]["mean"] == pytest.approx((0.5 + 0.3 + 0.3) / 3, abs=1e-6)


def test_accuracies_are_means_over_questions_and_seeds() -> None:
    both = pd.concat([table("sft", 1, SFT), table("rce", 1, RCE), table("rce", 2, SFT)])
    summary = json.loads(json.dumps(summarise(both, REGISTRY, 200)))
    rows = {(r["method"], r["shots"]): r for r in summary["rows"]}
    assert rows["sft", 1]["accuracy"] == pytest.approx((1 + 0.3 + 0) / 3, abs=1e-6)
    assert rows["rce", 1]["accuracy"] == pytest.approx((1 + 0.3 + 0.3) / 3, abs=1e-6)
    assert rows["rce", 1]["seed_accuracies"] == pytest.approx([1.9 / 3, 1.3 / 3], abs=1e-6)
    assert (rows["rce", 1]["n"], rows["rce", 1]["seeds"]) == (3, 2)
    for row in rows.values():
        assert row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]


def test_differences_are_paired_on_the_questions_of_the_method() -> None:
    few = {1: [1.0, 1.0], 2: [1.0, 1.0]}
    both = pd.concat([table("sft", 1, SFT), table("rce", 1, RCE), table("oracle", 0, few)])
    differences = {
        (r["method"], r["versus"], r["shots"]): r
        for r in summarise(both, REGISTRY, 200)["differences"]
    }
    mean = differences["rce", "sft", "mean"]
    assert mean["difference"] == pytest.approx((0.5 + 0 + 0.3) / 3, abs=1e-6)
    oracle = differences["oracle", "sft", 1]
    assert (oracle["n"], oracle["difference"]) == (2, pytest.approx(0.35))
    assert ("sft", "sft", 1) not in differences


def test_a_gain_is_what_one_more_demonstration_adds_on_the_questions_of_the_method() -> None:
    zero = table("zero-shot", 0, {1: [0.0], 2: [0.3], 3: [0.3]}).assign(shot=0)
    few = table("oracle", 0, {1: [1.0, 1.0], 3: [0.6, 1.0]})
    gains = summarise(pd.concat([zero, table("sft", 1, SFT), few]), REGISTRY, 200)["gains"]
    assert [(r["method"], r["shots"], r["n"]) for r in gains] == [
        *(("sft", 1, 3), ("sft", 2, 3), ("oracle", 1, 2), ("oracle", 2, 2)),
    ]
    expected = [(1.0 + 0.0 - 0.3) / 3, (-1.0 + 0.0 + 0.6) / 3, (1.0 + 0.3) / 2, (0.0 + 0.4) / 2]
    assert [r["difference"] for r in gains] == pytest.approx(expected, abs=1e-6)
    ours, before = np.array([1.0, 0.6]), np.array([0.0, 0.3])
    estimate = paired(ours, before, 200, np.array([1, 3]))
    assert gains[2]["ci95"] == pytest.approx([estimate.low, estimate.high], abs=1e-6)


def test_the_first_demonstration_is_compared_with_zero_shot_whatever_comes_before() -> None:
    zero = table("zero-shot", 0, {1: [0.0], 2: [0.3], 3: [0.3]}).assign(shot=0)
    instructed = zero.assign(method="instructed", vqa_acc_score=0.9)
    scores = pd.concat([instructed, zero, table("sft", 0, SFT)], ignore_index=True)
    gains = summarise(scores, REGISTRY, 200)["gains"]
    assert {row["method"] for row in gains} == {"sft"}
    assert gains[0]["difference"] == pytest.approx((1.0 + 0.0 - 0.3) / 3, abs=1e-6)


def test_without_zero_shot_the_first_demonstration_has_no_gain() -> None:
    gains = summarise(table("sft", 1, SFT), REGISTRY, 100)["gains"]
    assert [(r["method"], r["shots"]) for r in gains] == [("sft", 2)]


def test_a_missing_or_repeated_question_is_refused() -> None:
    whole = table("sft", 1, SFT)
    with pytest.raises(UserError, match=r"method sft, shot 1, seed 1: question 1 is missing"):
        summarise(pd.concat([whole, whole.iloc[:1]]), REGISTRY, 100)
    two_seeds = pd.concat([whole, table("sft", 2, SFT).iloc[2:]])
    with pytest.raises(UserError, match="method sft"):
        summarise(two_seeds, REGISTRY, 100)


def test_the_paired_interval_is_narrower_than_the_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(500)
    better = base + 0.05 + 0.01 * rng.standard_normal(500)
    together, alone = paired(better, base, 500), bootstrap(better, 500)
    assert together.low > 0
    assert together.high - together.low < 0.2 * (alone.high - alone.low)


def test_paired_scores_of_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        paired(np.zeros(3), np.zeros(4), 100)


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        estimate = bootstrap(rng.choice([0.0, 0.3, 0.6, 0.9, 1.0], 150), 200, seed=trial)
        covered += estimate.low <= 0.56 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.985


def test_a_question_that_a_shot_or_a_seed_lacks_is_named() -> None:
    """Means over shots would otherwise be over different questions."""
    whole = pd.concat([table("sft", 1, SFT), table("rce", 1, RCE), table("rce", 2, RCE)])
    rce = whole["method"] == "rce"
    gone = {
        "at a shot": rce & (whole["shot"] == 2) & (whole["query_id"] == 3),
        "at a shot of one seed": rce & (whole["shot"] == 2) & (whole["seed"] == 2),
        "at a seed": rce & (whole["seed"] == 2) & (whole["query_id"] == 3),
    }
    for rows in gone.values():
        with pytest.raises(UserError, match=r"method rce, shot \d, seed \d: question \d"):
            summarise(whole[~rows], REGISTRY, 100)


def test_methods_that_answered_other_questions_or_shots_are_not_compared() -> None:
    whole = pd.concat([table("sft", 1, SFT), table("rce", 1, RCE)])
    for method in ("sft", "rce"):
        lacking = (whole["method"] == method) & (whole["query_id"] == 2)
        with pytest.raises(UserError, match=r"not answer the same questions \(such as 2\)"):
            summarise(whole[~lacking], REGISTRY, 100)
        lacking = (whole["method"] == method) & (whole["shot"] == 2)
        with pytest.raises(UserError, match=r"method rce was evaluated at shots"):
            summarise(whole[~lacking], REGISTRY, 100)
