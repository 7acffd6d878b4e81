"""What methods scored by training and question, and the rows that the tables show of it.

A method that is trained more than once gets intervals over its trainings and the images
(`trainings`), and so does a difference to one. All others get a bootstrap over images: nothing is
trained, or it is trained once, and then the row says that the interval does not include training.
Draws of the random baseline are averaged by question: they are made for every question apart, so
what they differ by is noise of questions, and in that bootstrap.
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
    """What a method scored with some number of demonstrations, or on average over them.

    Attributes:
        scores: float [seeds, n]; questions in the order of their ids.
        seeds: Of its trainings, or draws, in ascending order.
        trained: Whether they are trainings.
    """

    scores: Scores
    seeds: tuple[int, ...]
    trained: bool

    @property
    def varies(self) -> bool:
        """Whether it is known how much its trainings differ."""
        return self.trained and len(self.scores) > 1

    @property
    def once(self) -> bool:
        """Whether it was trained once."""
        return self.trained and len(self.scores) == 1

    @property
    def by_question(self) -> Scores:
        """Return the mean over seeds, float [n]."""
        return np.asarray(self.scores.mean(axis=0))

    def of(self, chosen: Clusters) -> "Scored":
        """Return the scores of some questions, by their places."""
        return replace(self, scores=self.scores[:, chosen])


class Table:
    """Scores of a method: of every seed, question and number of demonstrations."""

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
        """Whether it shows nothing."""
        return self.shots == [0]

    def at(self, shot: int | str) -> Scored:
        """Return the scores at a shot; "mean": over all of them."""
        whole = shot == "mean"
        scores = self._scores.mean(axis=0) if whole else self._scores[self.shots.index(int(shot))]
        return Scored(scores, self.seeds, self._trained)

    def each(self) -> Iterator[tuple[int, Scored]]:
        """Yield the scores at every shot."""
        for shot in self.shots:
            yield shot, self.at(shot)

    def places(self, questions: pd.Index) -> Clusters:
        """Return where some questions are among the method's."""
        found = np.asarray(self.questions.get_indexer(questions), dtype=np.int64)
        if (found < 0).any():
            raise ValueError(f"{(found < 0).sum()} questions were not answered")
        return found


def accuracy(scored: Scored, images: Clusters, resamples: int) -> Row:
    """Return the accuracy of a method, as a row of the summary without its name.

    Args:
        scored: Its scores.
        images: Of the questions, int [n].
        resamples: Bootstrap resamples, where nothing varies but questions.
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

    Trainings of two methods with the same seeds are paired: their chains share data, and often a
    beginning. Where the seeds differ, each has a spread of its own.

    Args:
        ours: Scores of one method.
        theirs: Scores of the other on the same questions.
        images: Of the questions, int [n].
        resamples: Bootstrap resamples, where nothing varies but questions.

    Returns:
        difference, ci95, n; trainings: how many of each method the interval covers, 0 if none;
        one_training: whether a method was trained once, which it does not cover; p; spread: for
        planning. `corrected` adds what depends on the other rows of a table.
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
    """Return a mean with the interval that fits what varies beside the questions."""
    if not varying or not _several(images):
        return bootstrap(by_question, resamples, images)
    return estimate(measured(varying, by_question, images))


def _spread(varying: Sequence[Scores], by_question: Scores, images: Clusters) -> Spread:
    if not _several(images):
        return Spread(0.0, 0.0, 0.0)
    return spread_of(measured(varying, by_question, images))


def _several(images: Clusters) -> bool:
    """Return whether there are two images at least: one alone does not vary."""
    return bool((images != images[0]).any())


def corrected(rows: Sequence[Row], pairs: Sequence[Hashable] | None = None) -> list[Row]:
    """Return the differences of one table with what depends on how many there are.

    Args:
        rows: See `difference`.
        pairs: What each compares; rows that compare the same are one comparison.

    Returns:
        The rows with p rounded, p_holm: p corrected for all comparisons (Holm 1979); separable:
        whether it is below 5 %; trainings_needed: how many trainings of each method would show a
        difference of this size on these questions, where more would, else None.
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
    """Return the bounds, no wider than what there can be."""
    return [rounded(max(shown.low, least)), rounded(min(shown.high, 1.0))]


def rounded(value: float) -> float:
    """Return a number with as many digits as files have."""
    return round(float(value), 6)
