"""What a method costs is counted over the same prompts as its accuracy."""

import pandas as pd

from lever_plus.evaluation.costs import Costs, with_costs
from lever_plus.evaluation.evaluate import Row


def scores(tokens: int | None) -> pd.DataFrame:
    """Return two methods: one shows one and two demonstrations, the other nothing."""
    rows = [
        Row("shows", seed, query, query, shot, [7] * shot, [], "", 0, 0.0, False, length)
        for seed in (1, 2)
        for query, long in ((1, 0), (2, 4))
        for shot, length in ((1, tokens and tokens + long), (2, tokens and 2 * tokens + long))
    ]
    rows += [Row("none", 0, query, query, 0, [], [], "", 0, 0.0, False, 5) for query in (1, 2)]
    return pd.DataFrame(rows).astype({"prompt_tokens": "Int64"})


SUMMARY: dict[str, list[dict[str, object]]] = {
    "rows": [
        {"method": "shows", "shots": 1},
        {"method": "shows", "shots": 2},
        {"method": "none", "shots": 0},
    ],
    "means": [{"method": "shows", "accuracy": 0.5}],
    "gains": [],
}


def test_costs_are_means_over_the_prompts_of_the_row() -> None:
    found = with_costs(SUMMARY, scores(10), {"shows": [100, 103], "none": [0]})
    costs = [(row["demonstrations"], row["prompt_tokens"]) for row in found["rows"]]
    assert costs == [(1.0, 12.0), (2.0, 22.0), (0.0, 5.0)]
    assert [row.get("vlm_requests") for row in found["rows"]] == [None, None, 0.0]
    (mean,) = found["means"]
    assert mean == {
        **{"method": "shows", "accuracy": 0.5, "demonstrations": 1.5, "prompt_tokens": 17.0},
        "vlm_requests": 101.5,
    }
    assert found["gains"] == []
    assert "demonstrations" not in SUMMARY["means"][0]


def test_what_stops_is_counted_by_what_it_shows() -> None:
    table = scores(10)
    table["pointer"] = table["pointer"].map(lambda pointer: pointer[:1])
    found = with_costs(SUMMARY, table)
    assert [row["demonstrations"] for row in found["rows"]] == [1.0, 1.0, 0.0]
    assert found["means"][0]["demonstrations"] == 1.0


def test_what_is_not_known_is_said_to_be_so() -> None:
    found = with_costs(SUMMARY, scores(None))
    assert [row["prompt_tokens"] for row in found["rows"]] == [None, None, 5.0]
    assert found["means"][0]["prompt_tokens"] is None
    assert "vlm_requests" not in found["means"][0]


def test_the_time_of_a_method_is_the_mean_over_its_seeds() -> None:
    costs = Costs(milliseconds={"random": [0.5, 0.25], "sft": [1.0]})
    assert costs.timing() == {"random": 0.375, "sft": 1.0}
