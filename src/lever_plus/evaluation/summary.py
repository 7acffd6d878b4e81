"""metrics/summary.json: accuracies and paired differences, computed from the score table alone."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd

from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Estimate, Scores, bootstrap, paired

REFERENCES: Final = ("sft", "rce")
Row = dict[str, object]


def summarise(scores: pd.DataFrame, resamples: int) -> dict[str, object]:
    """Return the summary.

    Args:
        scores: The table of `evaluate`, one row a method, seed, question and shot.
        resamples: Bootstrap resamples.

    Returns:
        rows: accuracy of every method at every shot; means: over shots 1..K; differences: of every
        method to SFT and RCE, paired by question, at every shot and over all ("mean").
    """
    check_complete(scores)
    methods = list(dict.fromkeys(scores["method"]))
    table = {method: per_question(scores[scores["method"] == method]) for method in methods}
    rows = [
        {"method": method, "shots": shot, **_accuracy(scores, method, shot, values, resamples)}
        for method in methods
        for shot, values in _columns(table[method])
    ]
    means = [
        {"method": method, **_accuracy(scores, method, None, table[method].mean(axis=1), resamples)}
        for method in methods
        if list(table[method]) != [0]
    ]
    return {"rows": rows, "means": means, "differences": list(_differences(table, resamples))}


def _columns(table: pd.DataFrame) -> "Iterator[tuple[int, pd.Series[float]]]":
    for shot in table.columns:
        yield int(shot), table[shot]


def per_question(scores: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies [question, shot], averaged over seeds."""
    return scores.pivot_table(index="query_id", columns="shot", values="vqa_acc_score")


def check_complete(scores: pd.DataFrame) -> None:
    """Refuse a table in which a method, seed or shot misses questions or has one twice."""
    for (method, shot), part in scores.groupby(["method", "shot"]):
        counts = part.groupby("query_id").size()
        seeds = part["seed"].nunique()
        if (counts != seeds).any():
            raise UserError(
                f"method {method}, shot {shot}: question {counts.index[counts != seeds][0]} is "
                "missing or stands twice. Run `dvc repro evaluate` again."
            )


def _accuracy(
    scores: pd.DataFrame,
    method: str,
    shot: int | None,
    values: "pd.Series[float]",
    resamples: int,
) -> Row:
    part = scores[scores["method"] == method]
    part = part if shot is None else part[part["shot"] == shot]
    by_seed = part.groupby("seed")["vqa_acc_score"].mean()
    return {
        "accuracy": _round(values.mean()),
        **_interval(bootstrap(_array(values), resamples)),
        "n": len(values),
        "seeds": len(by_seed),
        "seed_accuracies": [_round(value) for value in by_seed],
    }


def _differences(table: dict[str, pd.DataFrame], resamples: int) -> Iterator[Row]:
    for reference in REFERENCES:
        for method, values in table.items():
            if method == reference or list(values) == [0] or reference not in table:
                continue
            versus = table[reference].loc[values.index]
            columns: Sequence[int | str] = [*values.columns, "mean"]
            for shot in columns:
                mine, theirs = (
                    _array(v.mean(axis=1) if shot == "mean" else v[shot]) for v in (values, versus)
                )
                estimate = paired(mine, theirs, resamples)
                yield {
                    "method": method,
                    "versus": reference,
                    "shots": shot,
                    "difference": _round(estimate.mean),
                    **_interval(estimate),
                    "n": len(mine),
                    "separable": estimate.low > 0 or estimate.high < 0,
                }


def _interval(estimate: Estimate) -> Row:
    return {"ci95": [_round(estimate.low), _round(estimate.high)]}


def _array(values: "pd.Series[float]") -> Scores:
    return np.asarray(values, dtype=np.float64)


def _round(value: float) -> float:
    return round(float(value), 6)
