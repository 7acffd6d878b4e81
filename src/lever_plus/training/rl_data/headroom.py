"""Headroom: whether the RL data hold anything to learn, before anything is trained."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lever_plus.errors import UserError
from lever_plus.training.rl_data.records import QueryRecord


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


def measure(records: Sequence[QueryRecord]) -> Headroom:
    """Measure RL data."""
    lists = [np.array([c.shots[-1].vqa_acc_score for c in r.candidates]) for r in records]
    right = [np.array([c.shots[-1].vqa_correct for c in r.candidates]) for r in records]
    largest = max(len(scores) for scores in lists)
    sizes = sorted({n for n in (1, 2, 4, 8, 16, 32, largest) if n <= largest})
    return Headroom(
        queries=len(records),
        candidates=float(np.mean([len(scores) for scores in lists])),
        accuracy=float(np.concatenate(lists).mean()),
        best=float(np.mean([scores.max() for scores in lists])),
        spread=float(np.mean([scores.std() for scores in lists])),
        all_wrong=float(np.mean([not hits.any() for hits in right])),
        all_right=float(np.mean([hits.all() for hits in right])),
        mixed=float(np.mean([hits.any() and not hits.all() for hits in right])),
        flat=float(np.mean([_flat(record) for record in records])),
        oracle={n: float(np.mean([_best_of(scores, n) for scores in lists])) for n in sizes},
        positives=_positives(records),
    )


def check_headroom(records: Sequence[QueryRecord], least: float) -> None:
    """Stop before training on data that teach nothing.

    Args:
        records: The RL data.
        least: Smallest share of groups that must differ in some accuracy (`rl.min_informative`).

    Raises:
        UserError: Fewer groups do.
    """
    informative = 1 - float(np.mean([_flat(record) for record in records]))
    if informative < least:
        raise UserError(
            f"{informative:.1%} of the RL data's groups have candidates that score differently, "
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


def _positives(records: Sequence[QueryRecord]) -> dict[str, float]:
    found: dict[str, list[int]] = {}
    for record in records:
        for candidate in record.candidates:
            found.setdefault(candidate.gen_method, []).append(candidate.shots[-1].vqa_correct)
    return {method: float(np.mean(hits)) for method, hits in sorted(found.items())}


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): round(part, 6) for key, part in value.items()}
    return round(value, 6) if isinstance(value, float) else value
