"""Differences that the summary lacks, and the share of the way to the oracle."""

import json

import pandas as pd
import pytest

from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.summary import summarise
from lever_plus.report.findings import differences, way_to_oracle
from lever_plus.report.tables import Summary
from tiny_world import REGISTRY


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
