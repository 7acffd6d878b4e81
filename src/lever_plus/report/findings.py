"""What the results say, in sentences, and how much of the way to the oracle each method goes."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lever_plus.config.names import GRPO
from lever_plus.evaluation.methods import ORACLE, ZERO_SHOT, Methods, methods_in
from lever_plus.evaluation.statistics import (
    LARGEST_TABLE,
    LEVEL,
    Clusters,
    Scores,
    draws,
    paired,
)
from lever_plus.evaluation.summary import images_of, per_question
from lever_plus.report.tables import Summary, percent, shots_of

Row = dict[str, Any]


def difference(
    summary: Summary, scores: pd.DataFrame, method: str, versus: str, resamples: int
) -> Row:
    """Return the paired difference of two methods' means over shots.

    The summary's where it has it, computed from the scores in the same way where it has not.
    """
    for row in summary["differences"]:
        if (row["method"], row["versus"], row["shots"]) == (method, versus, "mean"):
            known: Row = row
            return known
    return compared(_means(scores, method), _means(scores, versus), scores, resamples)


def compared(
    mine: "pd.Series[float]", theirs: "pd.Series[float]", scores: pd.DataFrame, resamples: int
) -> Row:
    """Return the paired difference of accuracies by question, as a row of the summary.

    Args:
        mine: Accuracies by query id.
        theirs: The same; questions that only one of them has are left out.
        scores: The table of `evaluate`, which knows the images.
        resamples: Bootstrap resamples.
    """
    shared = mine.index.intersection(theirs.index)
    ours, others = (np.asarray(v.loc[shared], dtype=np.float64) for v in (mine, theirs))
    found = paired(ours, others, resamples, clusters(scores, shared))
    return {
        "difference": found.mean,
        "ci95": [found.low, found.high],
        "n": len(shared),
        "separable": found.low > 0 or found.high < 0,
    }


def clusters(scores: pd.DataFrame, questions: pd.Index) -> Clusters:
    """Return the image of every question: what a bootstrap resamples as a whole."""
    return np.asarray(images_of(scores).loc[questions], dtype=np.int64)


def _means(scores: pd.DataFrame, method: str) -> "pd.Series[float]":
    return per_question(scores[scores["method"] == method]).mean(axis=1)


def best(summary: Summary, methods: Collection[str]) -> Row | None:
    """Return the row of the method with the highest mean over shots, None if there is none."""
    rows: list[Row] = [row for row in summary["means"] if row["method"] in methods]
    return max(rows, key=lambda row: row["accuracy"], default=None)


def sentences(summary: Summary, scores: pd.DataFrame, resamples: int) -> Iterator[str]:
    """Yield the summary in plain words.

    Args:
        summary: metrics/summary.json.
        scores: The table of `evaluate`.
        resamples: Bootstrap resamples.
    """
    methods = methods_in(summary)
    top = best(summary, methods.names("trained"))
    if top is None:
        yield "No trained method was evaluated."
        return
    name, shots = top["method"], shots_of(summary)
    seeds = f"mean of {top['seeds']} training seeds" if top["seeds"] > 1 else "one training seed"
    yield (
        f"Of the trained methods, {name} answers best: VQA accuracy {percent(top)}, mean over "
        f"shots {shots[0]} to {shots[-1]}, {top['n']} test questions, {seeds}. It is the best "
        "after the fact: a small lead over the other trained methods may be chance."
    )
    for other, label in _others(summary, methods).items():
        if other != name:
            yield _compared(name, label, difference(summary, scores, name, other, resamples))
    before = methods.offline
    if name != GRPO and GRPO in methods and before:
        row = difference(summary, scores, GRPO, before, resamples)
        yield _compared(GRPO, before.upper(), row)


def _others(summary: Summary, methods: Methods) -> dict[str, str]:
    """Return {method: what the sentence calls it} of what the best trained one is compared with."""
    found = {name: name.upper() for name in reversed(methods.references)}
    roles = {
        "the best baseline by similarity": best(summary, methods.names("similarity")),
        "the best baseline of all": best(summary, methods.names("similarity", "baseline")),
        "the best of those": best(summary, methods.names("selector")),
    }
    for role, row in roles.items():
        if row and row["method"] not in found:
            label = methods[row["method"]].label
            found[row["method"]] = f"{row['method']} ({label}: {role}, {percent(row)})"
    zero = next((row for row in summary["rows"] if row["method"] == ZERO_SHOT), None)
    if zero:
        found[ZERO_SHOT] = f"{ZERO_SHOT} ({percent(zero)})"
    return found


def _compared(method: str, label: str, row: Row) -> str:
    low, high = row["ci95"]
    size = f"{100 * row['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    word = "better" if row["difference"] > 0 else "worse"
    reading = word if row["separable"] else "not separable, the interval contains 0"
    return f"{method} minus {label}: {size}: {reading}."


class Closed(NamedTuple):
    """Share of the way that a method goes; the interval is None where it is not bounded."""

    method: str
    share: float
    interval: tuple[float, float] | None


class Way(NamedTuple):
    """The way from the best baseline by similarity to the oracle, on the oracle's questions."""

    shot: int
    baseline: str
    low: float
    high: float
    questions: int
    closed: tuple[Closed, ...]


def way_to_oracle(
    scores: pd.DataFrame, methods: Methods, resamples: int, shot: int = 2
) -> Way | None:
    """Return the share (trained - baseline) / (oracle - baseline) of accuracies at one shot.

    The baseline is the best by similarity on all its questions; the rest is counted on the
    oracle's questions. The interval resamples images, all three accuracies together.

    Args:
        scores: The table of `evaluate`.
        methods: What the methods are; trained ones get a share.
        resamples: Bootstrap resamples.
        shot: Where; the last shot if there are fewer.

    Returns:
        None if the oracle or the baselines are missing, or the oracle is not better.
    """
    shot = min(shot, int(scores["shot"].max()))
    at = scores[scores["shot"] == shot]
    table = at.pivot_table(index="query_id", columns="method", values="vqa_acc_score")
    similar = [name for name in methods.names("similarity") if name in table]
    if ORACLE not in table or not similar:
        return None
    baseline = str(table[similar].mean().idxmax())
    part = table[table[ORACLE].notna()]
    low, high = float(part[baseline].mean()), float(part[ORACLE].mean())
    if high <= low:
        return None
    images = clusters(scores, part.index)
    trained = [name for name in methods.names("trained") if name in part]
    closed = tuple(_closed(part, name, baseline, images, resamples) for name in trained)
    return Way(shot, baseline, low, high, len(part), closed)


def _closed(
    part: pd.DataFrame, method: str, baseline: str, images: Clusters, resamples: int
) -> Closed:
    gain = (part[method] - part[baseline]).to_numpy()
    whole = (part[ORACLE] - part[baseline]).to_numpy()
    share = float(gain.sum() / whole.sum())
    gains, wholes = _resampled([gain, whole], images, resamples)
    if (wholes <= 0).any():  # the oracle may not be better at all: the share has no bounds
        return Closed(method, share, None)
    low, high = np.quantile(gains / wholes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Closed(method, share, (float(low), float(high)))


def _resampled(columns: Sequence[Scores], images: Clusters, resamples: int) -> list[Scores]:
    """Return the sum of every column of values over the questions of each resample of images."""
    group = np.unique(images, return_inverse=True)[1]
    rows = max(1, LARGEST_TABLE // len(group))
    found = [list[Scores]() for _ in columns]
    for part in draws(int(group.max()) + 1, resamples):
        for start in range(0, len(part), rows):
            drawn = part[start : start + rows, group].astype(np.int64)
            for sums, values in zip(found, columns, strict=True):
                sums.append(drawn @ values)
    return [np.concatenate(sums) for sums in found]
