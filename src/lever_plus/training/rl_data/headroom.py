"""Headroom: whether the RL data hold anything to learn, before anything is trained."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from lever_plus.errors import UserError
from lever_plus.training.rl_data.records import QueryRecord

DRAWS: Final = (1, 2, 4, 8, 16, 32)
"""Numbers of candidates that an oracle picks the best of; beside them, all of a group."""


@dataclass(frozen=True)
class Headroom:
    """What the candidates of the RL data give; accuracies are official, at the last shot.

    Attributes:
        queries: Groups.
        candidates: Candidates a group, mean.
        accuracy: Mean over all candidates.
        best: Mean of each group's best: the oracle of the list.
        spread: Mean standard deviation inside groups.
        all_wrong: Share of groups without a right candidate.
        all_right: Share of groups without a wrong one.
        mixed: Share of groups with both.
        flat: Share of groups whose accuracies are equal at every shot: they teach nothing.
        oracle: {n: mean best of n candidates drawn from a group}, exact.
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
        """Return the fields, rounded."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    @property
    def verdict(self) -> str:
        """Return one plain sentence."""
        if self.flat == 1:
            return "There is nothing to learn: no candidate scores better than another."
        if self.best - self.accuracy < 0.01:
            return "There is next to nothing to learn: the best candidates are hardly better."
        return (
            f"There is something to learn: the best candidates give {100 * self.best:.1f}, the "
            f"average ones {100 * self.accuracy:.1f}; {self.mixed:.0%} of the groups have both "
            "right and wrong ones."
        )


class Meter:
    """Measures RL data while somebody else goes through them: a number a group is kept of each."""

    def __init__(self) -> None:
        """Start with no group."""
        self._sizes, self._accuracies = array("q"), array("d")
        self._groups = {name: array("d") for name in ("best", "spread", "both", "wrong", "right")}
        self._oracle = {count: array("d") for count in DRAWS}
        self._flat, self._hits = 0, Counter[str]()
        self._methods = Counter[str]()

    def watching(self, records: Iterable[QueryRecord]) -> Iterator[QueryRecord]:
        """Yield the records, measured."""
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
        """Return what all records together hold; there must be one."""
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
    """Yield RL data, and stop at their end, before training, where they teach nothing.

    Args:
        records: The RL data.
        least: Smallest share of groups that must differ in some accuracy (`rl.min_informative`).

    Raises:
        UserError: Fewer groups do.
    """
    flat = count = 0
    for record in records:
        count += 1
        flat += _flat(record)
        yield record
    share = 1 - flat / count if count else 0.0
    if share < least:
        raise UserError(
            f"{share:.1%} of the RL data's groups have candidates that score differently, "
            f"rl.min_informative asks for {least:.1%}: there is nothing to learn from them. Try "
            "more varied candidates (rl_data), harder questions, or another VLM; `lever-plus "
            "headroom` shows the data."
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
