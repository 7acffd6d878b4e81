"""Scores of methods by training and question, and the rows of tables computed from them.

If a method is trained more than once, intervals of its accuracy and of differences from it cover
trainings and images (`trainings`). All other intervals are a bootstrap over images; if a method was
trained only once, its row says that the interval does not include training. The draws of the random
baseline are averaged for each question: they are independent for each question, so the bootstrap
over images includes their noise.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lever_plus.evaluation.statistics import LEVEL, Clusters, Estimate, Scores, bootstrap, holm
from lever_plus.evaluation.trainings import (
    Spread,
    estimate,
    measured,
    spread_of,
    trainings_needed,
)

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of a method at one shot, or their mean over shots.

    Attributes:
        scores: Float [seeds, n], VQA accuracies in [0, 1]; questions in the order of their ids.
        seeds: Seeds of the trainings, or of random draws, in ascending order.
        trained: Whether the seeds are those of trainings.
    """

    scores: Scores
    seeds: tuple[int, ...]
    trained: bool

    @property
    def varies(self) -> bool:
        """Whether there are several trainings, so that their variance is known."""
        return self.trained and len(self.scores) > 1

    @property
    def once(self) -> bool:
        """Whether the method was trained exactly once."""
        return self.trained and len(self.scores) == 1

    @property
    def by_question(self) -> Scores:
        """Return the mean over seeds, float [n]."""
        return np.asarray(self.scores.mean(axis=0))

    def of(self, chosen: Clusters) -> "Scored":
        """Return the scores of some questions, by their positions."""
        return replace(self, scores=self.scores[:, chosen])


class Table:
    """Scores of a method for each seed, question and shot."""

    def __init__(self, part: pd.DataFrame, *, trained: bool) -> None:
        """Take the rows of one method of a complete score table."""
        whole = part.pivot(index="query_id", columns=["shot", "seed"], values="vqa_acc_score")
        self.questions, self._trained = whole.index, trained
        self.shots = sorted(int(shot) for shot in part["shot"].unique())
        self.seeds = tuple(sorted(int(seed) for seed in part["seed"].unique()))
        ordered = whole.sort_index(axis=1).to_numpy(dtype=np.float64).T
        self._scores = np.ascontiguousarray(ordered).reshape(len(self.shots), len(self.seeds), -1)

    @property
    def zero_shot(self) -> bool:
        """Whether the method shows no demonstrations."""
        return self.shots == [0]

    def at(self, shot: int | str) -> Scored:
        """Return the scores at a shot, or ("mean") their means over all shots."""
        whole = shot == "mean"
        scores = self._scores.mean(axis=0) if whole else self._scores[self.shots.index(int(shot))]
        return Scored(scores, self.seeds, self._trained)

    def each(self) -> Iterator[tuple[int, Scored]]:
        """Yield each shot with its scores."""
        for shot in self.shots:
            yield shot, self.at(shot)

    def places(self, questions: pd.Index) -> Clusters:
        """Return the positions of some questions (ids) among the method's."""
        found = np.asarray(self.questions.get_indexer(questions), dtype=np.int64)
        if (found < 0).any():
            raise ValueError(f"{(found < 0).sum()} questions were not answered")
        return found


def accuracy(scored: Scored, images: Clusters, resamples: int) -> Row:
    """Return the accuracy of a method, as a row of the summary without its name.

    Args:
        scored: The method's scores.
        images: Image id of each question, int [n].
        resamples: Number of bootstrap resamples, if there are not several trainings.

    Returns:
        accuracy; ci95: its 95 % interval; n: number of questions; seeds: number of seeds;
        one_training: whether it was trained exactly once, which the interval does not cover;
        seed_accuracies: the accuracy of each seed.
    """
    varying = [scored.scores] if scored.varies else []
    shown = _shown(varying, scored.by_question, images, resamples)
    return {
        "accuracy": rounded(shown.mean),
        "ci95": _interval(shown, 0.0),
        "n": len(images),
        "seeds": len(scored.seeds),
        "one_training": scored.once,
        "seed_accuracies": [rounded(value) for value in scored.scores.mean(axis=1)],
    }


def difference(ours: Scored, theirs: Scored, images: Clusters, resamples: int) -> Row:
    """Return the difference of two methods, paired by question, as a row without their names.

    Trainings of two methods with the same seeds are paired, as they share data and often the policy
    that they start from. With different seeds, the variances of both are added.

    Args:
        ours: Scores of one method.
        theirs: Scores of the other method on the same questions.
        images: Image id of each question, int [n].
        resamples: Number of bootstrap resamples, if neither method has several trainings.

    Returns:
        difference: ours minus theirs; ci95: its 95 % interval; n: number of questions; trainings:
        how many of each method the interval covers, 0 if none; one_training: whether one of the
        methods was trained only once, which the interval does not cover; p: two-sided p-value;
        spread: see `trainings.Spread`. `corrected` adds what depends on the other rows of a table.
    """
    if ours.scores.shape[1] != theirs.scores.shape[1]:
        raise ValueError(f"scores of {ours.scores.shape[1]} and {theirs.scores.shape[1]} questions")
    by_question = ours.by_question - theirs.by_question
    varying = [side for side in (ours, theirs) if side.varies]
    scores = [side.scores for side in varying]
    if len(varying) == 2 and ours.seeds == theirs.seeds:
        scores = [ours.scores - theirs.scores]
    shown = _shown(scores, by_question, images, resamples)
    spread = _spread(scores, by_question, images)
    return {
        "difference": rounded(shown.mean),
        "ci95": _interval(shown, -1.0),
        "n": len(images),
        "trainings": min((len(side.seeds) for side in varying), default=0),
        "one_training": ours.once or theirs.once,
        "p": shown.p,
        "spread": {name: rounded(value) for name, value in spread._asdict().items()},
    }


def _shown(
    varying: Sequence[Scores], by_question: Scores, images: Clusters, resamples: int
) -> Estimate:
    """Return a mean with its interval: over trainings and images, or a bootstrap over images."""
    if not varying or not _several(images):
        return bootstrap(by_question, resamples, images)
    return estimate(measured(varying, by_question, images))


def _spread(varying: Sequence[Scores], by_question: Scores, images: Clusters) -> Spread:
    if not _several(images):
        return Spread(0.0, 0.0, 0.0)
    return spread_of(measured(varying, by_question, images))


def _several(images: Clusters) -> bool:
    """Return whether there are at least two images: one alone shows no variance."""
    return bool((images != images[0]).any())


def corrected(rows: Sequence[Row], pairs: Sequence[Hashable] | None = None) -> list[Row]:
    """Return the differences of one table, with p-values corrected for their number.

    Args:
        rows: Rows as `difference` returns them.
        pairs: What each row compares; rows with the same pair count as one comparison. None: all
            rows are different comparisons.

    Returns:
        The rows with p rounded, and p_holm: p corrected for all comparisons (Holm 1979); separable:
        whether p_holm is below 5 %; trainings_needed: if trained methods are not separable, with
        how many trainings of each a difference of this size would be found on these questions; None
        otherwise, or if those are too many to plan.
    """
    keys = list(range(len(rows))) if pairs is None else list(pairs)
    distinct = dict(zip(keys, (row["p"] for row in rows), strict=True))
    whole = dict(zip(distinct, holm(list(distinct.values())), strict=True))
    return [
        {**row, "p": rounded(row["p"]), **_verdict(row, whole[key])}
        for row, key in zip(rows, keys, strict=True)
    ]


def _verdict(row: Row, p_holm: float) -> Row:
    separable, needed = p_holm < 1 - LEVEL, None
    if not separable and row["trainings"] and row["p"] > 0:
        level = (1 - LEVEL) * row["p"] / p_holm
        found = trainings_needed(Spread(**row["spread"]), abs(row["difference"]), row["n"], level)
        needed = None if found is None else max(found, row["trainings"] + 1)
    return {"p_holm": rounded(p_holm), "separable": separable, "trainings_needed": needed}


def _interval(shown: Estimate, least: float) -> list[float]:
    """Return the bounds of an interval, cut to the possible range."""
    return [rounded(max(shown.low, least)), rounded(min(shown.high, 1.0))]


def rounded(value: float) -> float:
    """Return a number with the digits that files have (6 decimals)."""
    return round(float(value), 6)
