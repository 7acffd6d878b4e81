"""Differences that the summary lacks, and how much of the way to the oracle each method goes."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lever_plus.evaluation.methods import ORACLE, Methods, methods_in
from lever_plus.evaluation.scored import Row, Scored, Table, corrected, difference
from lever_plus.evaluation.statistics import LARGEST_TABLE, LEVEL, Clusters, Scores, draws
from lever_plus.evaluation.summary import images_of
from lever_plus.evaluation.trainings import over_runs
from lever_plus.report.tables import Summary, mean_differences

Pair = tuple[str, str]


def differences(
    summary: Summary, scores: pd.DataFrame, pairs: Sequence[Pair], resamples: int
) -> list[Row]:
    """Return the paired differences of some methods' means over shots.

    They are taken from the summary where it has them. Others are computed from the scores in the
    same way, and corrected for all of the pairs.

    Args:
        summary: metrics/summary.json.
        scores: The table of `evaluate`.
        pairs: Methods, and what each is compared with.
        resamples: Bootstrap resamples.
    """
    known = {(row["method"], row["versus"]): row for row in mean_differences(summary)}
    trained = methods_in(summary).names("trained")
    found = [known.get(pair) or _difference(scores, pair, trained, resamples) for pair in pairs]
    return [known.get(pair, row) for pair, row in zip(pairs, corrected(found), strict=True)]


def _difference(scores: pd.DataFrame, pair: Pair, trained: Collection[str], resamples: int) -> Row:
    mine, theirs = (
        Table(scores[scores["method"] == method], trained=method in trained) for method in pair
    )
    shared = mine.questions.intersection(theirs.questions)
    ours, others = (table.at("mean").of(table.places(shared)) for table in (mine, theirs))
    return difference(ours, others, clusters(scores, shared), resamples)


def clusters(scores: pd.DataFrame, questions: pd.Index) -> Clusters:
    """Return the image of every question: images are resampled with all their questions."""
    return np.asarray(images_of(scores).loc[questions], dtype=np.int64)


def best(summary: Summary, methods: Collection[str]) -> Row | None:
    """Return the row of the method with the highest mean over shots, None if there is none."""
    rows: list[Row] = [row for row in summary["means"] if row["method"] in methods]
    return max(rows, key=lambda row: row["accuracy"], default=None)


class Closed(NamedTuple):
    """Share of the way to the oracle that a method goes; no interval where it is not bounded."""

    method: str
    share: float
    interval: tuple[float, float] | None


class Way(NamedTuple):
    """The way from the best method by similarity to the oracle, on the oracle's questions."""

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
    oracle's questions. The interval covers images, all three accuracies together, and trainings
    where there are several.

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
    closed = []
    for name in (name for name in methods.names("trained") if name in part):
        table_ = Table(at[at["method"] == name], trained=True)
        scored = table_.at(shot).of(table_.places(part.index))
        closed.append(Closed(name, *_share(part, scored, baseline, images, resamples)))
    return Way(shot, baseline, low, high, len(part), tuple(closed))


def _share(
    part: pd.DataFrame, scored: Scored, baseline: str, images: Clusters, resamples: int
) -> tuple[float, tuple[float, float] | None]:
    """Return a share of the way, and its interval."""
    gains = scored.scores - part[baseline].to_numpy()
    whole = (part[ORACLE] - part[baseline]).to_numpy()
    share = float(gains.mean() / whole.mean())
    drawn, wholes = _resampled([gains.mean(axis=0), whole], images, resamples)
    if (wholes <= 0).any():  # the oracle may not be better at all: the share has no bounds
        return share, None
    if scored.varies:
        # To first order, the share varies as the mean of these does.
        found = over_runs(share + (gains - share * whole) / whole.mean(), images)
        return share, (found.low, found.high)
    low, high = np.quantile(drawn / wholes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return share, (float(low), float(high))


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
