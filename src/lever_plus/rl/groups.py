"""Groups: all candidates of a query as tensors, duplicates marked, rewards per shot."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lever_plus.data.pool import Pools
from lever_plus.errors import UserError
from lever_plus.rl.records import Candidate, QueryRecord


@dataclass(frozen=True)
class Groups:
    """Candidates of n queries, padded to the largest group.

    Attributes:
        queries: Query ids, in row order; groups are never inferred from positions.
        pointers: Positions in each query's pool, int [n, G, T].
        rewards: Accuracy at shots 1..T in [0, 1], float [n, G, T].
        keep: Bool [n, G]; False for padding and for repeats of an earlier candidate.
    """

    queries: tuple[int, ...]
    pointers: Tensor
    rewards: Tensor
    keep: Tensor

    def rows(self, index: Tensor) -> "Groups":
        """Return some of the groups."""
        ids = tuple(self.queries[i] for i in index.tolist())
        return Groups(ids, self.pointers[index], self.rewards[index], self.keep[index])


def groups_from_records(
    records: Sequence[QueryRecord], pools: Pools, shot_weights: Sequence[float]
) -> Groups:
    """Build groups from RL data.

    Args:
        records: The RL data.
        pools: Pools that the pointers are positions in.
        shot_weights: Weights of the accuracies at shots 1..T in the reward; imported data may lack
            scores at shots that weigh nothing (they count as 0).

    Raises:
        PointerError: A pointer leaves its pool.
        UserError: A pointer has another length than `shot_weights`, or no score at a shot that has
            weight.
    """
    largest = max(len(record.candidates) for record in records)
    pointers, rewards, real = [], [], []
    for record in records:
        padding = largest - len(record.candidates)
        candidates = (*record.candidates, *record.candidates[:1] * padding)
        pointers.append([pools.positions(record.query_id, c.pointer) for c in candidates])
        rewards.append([_scores(record.query_id, c, shot_weights) for c in candidates])
        real.append([True] * len(record.candidates) + [False] * padding)
    positions = torch.tensor(pointers)
    return Groups(
        queries=tuple(record.query_id for record in records),
        pointers=positions,
        rewards=torch.tensor(rewards, dtype=torch.float32),
        keep=first_occurrences(positions) & torch.tensor(real),
    )


def _scores(query_id: int, candidate: Candidate, weights: Sequence[float]) -> list[float]:
    if len(candidate.pointer) != len(weights):
        raise UserError(
            f"query {query_id}: a pointer of the RL data has {len(candidate.pointer)} ICDs, but "
            f"reward.shot_weights has {len(weights)} weights: set pointer.shots to the data's."
        )
    scored = {shot.shot: shot.vqa_acc_score for shot in candidate.shots}
    lacking = [k for k, w in enumerate(weights, start=1) if w > 0 and k not in scored]
    if lacking:
        raise UserError(
            f"query {query_id}: the RL data have no score at shot {lacking[0]}, but "
            "reward.shot_weights gives it weight: set that weight to 0.0, or run "
            "`dvc repro rl_data`."
        )
    return [scored.get(k, 0.0) for k in range(1, len(weights) + 1)]


def first_occurrences(pointers: Tensor) -> Tensor:
    """Return bool [n, G]: False where an equal pointer stands earlier in the group [n, G, T]."""
    equal = (pointers.unsqueeze(2) == pointers.unsqueeze(1)).all(-1)
    return ~equal.tril(diagonal=-1).any(-1)
