"""The summary in words, and the share of the way to the oracle."""

import json

import pandas as pd
import pytest

from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.methods import methods_of
from lever_plus.evaluation.summary import summarise
from lever_plus.report.findings import differences, sentences, way_to_oracle
from lever_plus.report.tables import Summary
from tiny_world import REGISTRY, TARGETS


def table(accuracies: dict[str, float], questions: int = 200) -> pd.DataFrame:
    """A method is right on the first questions, so that differences are certain."""
    rows = [
        Row(method, 1, q, q, shot, [], [], "x", 1, float(q < accuracy * questions), False)
        for method, accuracy in accuracies.items()
        for q in range(questions // 2 if method == "oracle" else questions)
        for shot in ((0,) if method in ("zero-shot", "instructed") else (1, 2))
    ]
    return pd.DataFrame(rows)


def summary_of(scores: pd.DataFrame) -> Summary:
    loaded: Summary = json.loads(json.dumps(summarise(scores, REGISTRY, 200)))
    return loaded


def test_the_best_method_is_named_with_its_differences() -> None:
    same = {"zero-shot": 0.2, "sttr": 0.4, "siir": 0.3, "sft": 0.5, "rce": 0.5, "grpo": 0.7}
    scores = table(same)
    told = list(sentences(summary_of(scores), scores, 200))
    assert told[0].startswith("Of the trained methods, grpo answers best: VQA accuracy 70.0 [")
    assert "one training seed" in told[0]
    assert [sentence.split(" (")[0].split(":")[0] for sentence in told[1:]] == [
        "grpo minus RCE",
        "grpo minus SFT",
        "grpo minus sttr",
        "grpo minus zero-shot",
    ]
    assert "+20.0 points" in told[1]
    assert told[1].endswith("better (one training: the interval does not include training).")
    assert "+30.0 points" in told[3]
    assert "+50.0 points" in told[4]


def test_a_baseline_that_beats_all_similarities_is_named_too() -> None:
    scores = table({"sttr": 0.4, "fixed": 0.6, "sft": 0.5, "oracle": 0.5})
    told = " ".join(sentences(summary_of(scores), scores, 200))
    assert "sft minus fixed (one pointer for all queries, chosen on dev: the best" in told
    assert "the best baseline of all, 60.0 [" in told
    assert "-10.0 points" in told
    assert ": worse (" in told
    assert "oracle" not in told


def test_the_best_instruction_is_compared_like_the_plain_vlm() -> None:
    scores = table({"zero-shot": 0.2, "instructed": 0.4, "sft": 0.5})
    told = list(sentences(summary_of(scores), scores, 200))
    assert told[-2].startswith("sft minus zero-shot (the VLM without demonstrations, 20.0 [")
    assert told[-1].startswith("sft minus instructed (the VLM without demonstrations, with the ")
    assert ": +10.0 points [" in told[-1]


def test_what_does_not_separate_is_said() -> None:
    scores = table({"zero-shot": 0.5, "sft": 0.5, "rce": 0.505, "grpo": 0.5})
    told = list(sentences(summary_of(scores), scores, 200))
    assert told[0].startswith("Of the trained methods, rce answers best")
    assert "rce minus SFT: +0.5 points" in told[1]
    assert ": n.s. (" in told[1]
    assert told[-1].startswith("grpo minus RCE: -0.5 points")


def test_a_difference_is_the_summarys_or_computed_alike() -> None:
    scores = table({"zero-shot": 0.2, "sft": 0.4, "rce": 0.5, "sttr": 0.3})
    summary = summary_of(scores)
    pairs = [("rce", "sft"), ("sttr", "rce")]
    known = differences(summary, scores, pairs, 200)
    again = differences({**summary, "differences": []}, scores, pairs, 200)
    assert all(row in summary["differences"] for row in known)
    for mine, theirs in zip(again, known, strict=True):
        shared = mine.keys() - {"p_holm"}
        assert {key: mine[key] for key in shared} == {key: theirs[key] for key in shared}


def test_the_share_of_the_way_has_the_spread_of_trainings() -> None:
    """Three trainings on either side of the one, far apart: the mean share is alike."""
    even = table({"sttr": 0.2, "grpo": 0.35, "oracle": 0.5})
    grpo = even[even["method"] == "grpo"]
    others = []
    for seed, accuracy in ((2, 0.25), (3, 0.45)):
        right = (grpo["query_id"] < 200 * accuracy).astype(float)
        others.append(grpo.assign(seed=seed, vqa_acc_score=right))
    alone, apart = (
        way_to_oracle(scores, REGISTRY, 500) for scores in (even, pd.concat([even, *others]))
    )
    assert alone
    assert apart
    assert apart.closed[0].share == pytest.approx(alone.closed[0].share)
    first, second = alone.closed[0].interval, apart.closed[0].interval
    assert first
    assert second
    assert second[1] - second[0] > 2 * (first[1] - first[0])


def test_the_way_is_counted_on_the_oracles_questions() -> None:
    """On the first half of the questions: sttr .4, grpo .7, oracle 1 (twice the shares of all)."""
    scores = table({"sttr": 0.2, "siir": 0.1, "sft": 0.2, "grpo": 0.35, "oracle": 0.5})
    way = way_to_oracle(scores, REGISTRY, 500)
    assert way
    assert (way.shot, way.baseline, way.questions) == (2, "sttr", 100)
    assert (way.low, way.high) == pytest.approx((0.4, 1.0))
    shares = {closed.method: closed for closed in way.closed}
    assert set(shares) == {"sft", "grpo"}
    assert shares["sft"].share == 0
    assert shares["grpo"].share == pytest.approx(0.5)
    interval = shares["grpo"].interval
    assert interval
    assert interval[0] < 0.5 < interval[1]


def test_without_an_oracle_that_is_better_there_is_no_way() -> None:
    assert way_to_oracle(table({"sttr": 0.2, "grpo": 0.3}), REGISTRY, 100) is None
    assert way_to_oracle(table({"sttr": 0.5, "oracle": 0.5}), REGISTRY, 100) is None
    assert way_to_oracle(table({"oracle": 0.5}), REGISTRY, 100) is None
    barely = way_to_oracle(table({"sttr": 0.495, "sft": 0.2, "oracle": 0.5}), REGISTRY, 500)
    assert barely
    assert barely.closed[0].interval is None


def test_a_users_selector_is_compared_and_is_no_baseline() -> None:
    scores = table({"sttr": 0.4, "mine": 0.6, "sft": 0.5})
    summary = json.loads(
        json.dumps(summarise(scores, methods_of({}, TARGETS, selectors=["mine"]), 200))
    )
    told = " ".join(sentences(summary, scores, 200))
    assert "sft minus mine (a selector of your own: the best of those, 60.0 [" in told
    assert "the best baseline of all" not in told
