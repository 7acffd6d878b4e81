"""Headroom: whether there is anything to learn from the RL data, before anything is trained."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from lever_plus.errors import UserError
from lever_plus.training.rl_data.records import QueryRecord

DRAWS: Final = (1, 2, 4, 8, 16, 32)
"""How many candidates an oracle picks the best of; it also picks the best of a whole group."""


@dataclass(frozen=True)
class Headroom:
    """How good the candidates of the RL data are, by VQA accuracy at the last shot.

    Attributes:
        queries: Number of groups (one per query).
        candidates: Candidates per group, mean.
        accuracy: Mean accuracy of all candidates.
        best: Mean accuracy of each group's best candidate: an oracle that picks from the group.
        spread: Standard deviation of accuracies inside a group, mean over groups.
        all_wrong: Share of groups in which no candidate is right.
        all_right: Share of groups in which every candidate is right.
        mixed: Share of groups with both right and wrong candidates.
        flat: Share of groups in which all candidates score the same at every shot; they teach
            nothing.
        oracle: {n: mean accuracy of the best of n candidates drawn from a group}; an exact
            expectation, not a simulation.
        positives: {gen_method: share of its candidates that are right}.
    """

    queries: int
    candidates: float
    accuracy: float
    best: float
    spread: float
    all_wrong: float
    all_right: float
    mixed: float
    flat: float
    oracle: dict[int, float]
    positives: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values, rounded to six decimals."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    @property
    def verdict(self) -> str:
        """Return a sentence that says whether there is something to learn."""
        if self.flat == 1:
            return "There is nothing to learn: no candidate scores better than another."
        if self.best - self.accuracy < 0.01:
            return (
                "There is next to nothing to learn: the best candidates are hardly better than "
                "the average."
            )
        return (
            f"There is something to learn: the best candidates reach {100 * self.best:.1f}, the "
            f"average is {100 * self.accuracy:.1f}; {self.mixed:.0%} of the groups have both right "
            "and wrong candidates."
        )


class Meter:
    """Measures RL data while something else reads them; it keeps a few numbers per group."""

    def __init__(self) -> None:
        """Start without any group."""
        self._sizes, self._accuracies = array("q"), array("d")
        self._groups = {name: array("d") for name in ("best", "spread", "both", "wrong", "right")}
        self._oracle = {count: array("d") for count in DRAWS}
        self._flat, self._hits = 0, Counter[str]()
        self._methods = Counter[str]()

    def watching(self, records: Iterable[QueryRecord]) -> Iterator[QueryRecord]:
        """Yield the records unchanged, and measure each."""
        for record in records:
            self._add(record)
            yield record

    def _add(self, record: QueryRecord) -> None:
        last = [candidate.shots[-1] for candidate in record.candidates]
        scores = np.array([shot.vqa_acc_score for shot in last])
        hits = np.array([shot.vqa_correct for shot in last])
        self._sizes.append(len(last))
        self._accuracies.extend(scores)
        self._groups["best"].append(scores.max())
        self._groups["spread"].append(scores.std())
        self._groups["wrong"].append(float(not hits.any()))
        self._groups["right"].append(float(hits.all()))
        self._groups["both"].append(float(hits.any() and not hits.all()))
        for count, best in self._oracle.items():
            best.append(_best_of(scores, count))
        self._flat += _flat(record)
        for candidate, shot in zip(record.candidates, last, strict=True):
            self._methods[candidate.gen_method] += 1
            self._hits[candidate.gen_method] += shot.vqa_correct

    def headroom(self) -> Headroom:
        """Return the headroom of all records so far; there must be at least one."""
        means = {name: float(np.mean(values)) for name, values in self._groups.items()}
        largest = max(self._sizes)
        oracle = {n: float(np.mean(best)) for n, best in self._oracle.items() if n <= largest}
        return Headroom(
            queries=len(self._sizes),
            candidates=float(np.mean(self._sizes)),
            accuracy=float(np.mean(self._accuracies)),
            best=means["best"],
            spread=means["spread"],
            all_wrong=means["wrong"],
            all_right=means["right"],
            mixed=means["both"],
            flat=self._flat / len(self._sizes),
            oracle=dict(sorted((oracle | {largest: means["best"]}).items())),
            positives={m: self._hits[m] / count for m, count in sorted(self._methods.items())},
        )


def measure(records: Iterable[QueryRecord]) -> Headroom:
    """Measure RL data."""
    meter = Meter()
    for _ in meter.watching(records):
        pass
    return meter.headroom()


def informative(records: Iterable[QueryRecord], least: float) -> Iterator[QueryRecord]:
    """Yield RL data, and refuse them at their end if they teach too little to train on.

    Args:
        records: The RL data.
        least: Smallest share of groups in which some candidates must score differently
            (`rl.min_informative`).

    Raises:
        UserError: The share is smaller.
    """
    flat = count = 0
    for record in records:
        count += 1
        flat += _flat(record)
        yield record
    share = 1 - flat / count if count else 0.0
    if share < least:
        raise UserError(
            f"{share:.1%} of the RL data's groups have candidates that score differently, but "
            f"rl.min_informative asks for {least:.1%}: there is too little to learn from them. Try "
            "more varied candidates (section rl_data), harder questions, or another VLM; "
            "`lever-plus headroom` shows more about the data."
        )


def _flat(record: QueryRecord) -> bool:
    return len({tuple(s.vqa_acc_score for s in c.shots) for c in record.candidates}) == 1


def _best_of(scores: "np.typing.NDArray[np.float64]", count: int) -> float:
    """Return the expected best of `count` candidates drawn from a list without replacement."""
    ordered, total = np.sort(scores), len(scores)
    if count >= total:
        return float(ordered[-1])
    # P(best is the i-th smallest) = C(i, count - 1) / C(total, count), i counted from 0.
    weights = np.ones(total)
    for k in range(count - 1):
        weights *= np.clip(np.arange(total) - k, 0, None) / (k + 1)
    return float(ordered @ (weights / weights.sum()))


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): round(part, 6) for key, part in value.items()}
    return round(value, 6) if isinstance(value, float) else value
