"""Groups: all candidates of a query as tensors, duplicates marked, rewards per shot."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lever_plus.data.pool import Pools
from lever_plus.rl.records import QueryRecord


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


def groups_from_records(records: Sequence[QueryRecord], pools: Pools) -> Groups:
    """Build groups from RL data; PointerError if a pointer leaves its pool."""
    largest = max(len(record.candidates) for record in records)
    pointers, rewards, real = [], [], []
    for record in records:
        padding = largest - len(record.candidates)
        candidates = (*record.candidates, *record.candidates[:1] * padding)
        pointers.append([pools.positions(record.query_id, c.pointer) for c in candidates])
        rewards.append([[shot.vqa_acc_score for shot in c.shots] for c in candidates])
        real.append([True] * len(record.candidates) + [False] * padding)
    positions = torch.tensor(pointers)
    return Groups(
        queries=tuple(record.query_id for record in records),
        pointers=positions,
        rewards=torch.tensor(rewards, dtype=torch.float32),
        keep=first_occurrences(positions) & torch.tensor(real),
    )


def first_occurrences(pointers: Tensor) -> Tensor:
    """Return bool [n, G]: False where an equal pointer stands earlier in the group [n, G, T]."""
    equal = (pointers.unsqueeze(2) == pointers.unsqueeze(1)).all(-1)
    return ~equal.tril(diagonal=-1).any(-1)
