"""Groups: all candidates of each query as tensors, with a reward per shot and repeats marked."""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lever_plus.config.reward import RewardParams, needed_scores
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.training.rewards import Floats, Scores, shot_rewards
from lever_plus.training.rl_data.records import Candidate, QueryRecord, Shot
from lever_plus.training.state import StateDict

LARGEST_COMPARISON: Final = 10_000_000
"""How many numbers are compared at once in the search for repeats; this bounds the memory."""


@dataclass(frozen=True)
class Groups:
    """Candidates of n queries, padded to the largest group.

    Attributes:
        queries: Query ids, in row order; groups are never inferred from positions.
        pointers: Positions in each query's pool, int32 or int64 [n, G, T].
        rewards: Rewards at shots 1..T, float [n, G, T].
        keep: Bool [n, G]; False for padding and for repeats of an earlier candidate.
    """

    queries: tuple[int, ...]
    pointers: Tensor
    rewards: Tensor
    keep: Tensor

    def rows(self, index: Tensor) -> "Groups":
        """Return the groups of these rows, with pointers as int64 for use as tensor indices."""
        ids = tuple(self.queries[i] for i in index.tolist())
        return Groups(ids, self.pointers[index].long(), self.rewards[index], self.keep[index])

    def with_candidates(self, more: "Groups") -> "Groups":
        """Return the groups with further candidates added; repeats are marked as not kept.

        Raises:
            ValueError: The candidates are of other queries.
        """
        if self.queries != more.queries:
            raise ValueError("candidates of other queries")
        pointers = torch.cat([self.pointers, more.pointers], dim=1)
        return Groups(
            queries=self.queries,
            pointers=pointers,
            rewards=torch.cat([self.rewards, more.rewards], dim=1),
            keep=first_occurrences(pointers) & torch.cat([self.keep, more.keep], dim=1),
        )


@dataclass
class Candidates:
    """The candidates that a training currently learns from; a round of fresh ones changes them.

    Attributes:
        groups: The candidates; their queries stay the same.
        log_probs: Log-probs of the picks under the policy that drew all candidates, [n, G, T];
            None if they came from elsewhere.
    """

    groups: Groups
    log_probs: Tensor | None = None

    def state_dict(self) -> StateDict:
        """Return everything except the query ids."""
        groups = self.groups
        tensors = {"pointers": groups.pointers, "rewards": groups.rewards, "keep": groups.keep}
        return tensors if self.log_probs is None else {**tensors, "log_probs": self.log_probs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the candidates of another training on the same queries."""
        tensors = state["pointers"], state["rewards"], state["keep"]
        self.groups = Groups(self.groups.queries, *tensors)
        self.log_probs = state.get("log_probs")


def groups_from_records(
    records: Iterable[QueryRecord],
    pools: Pools,
    reward: RewardParams,
    methods: Collection[str] | None = None,
) -> Groups:
    """Build groups from RL data.

    Args:
        records: The RL data; they are read one at a time, and only what training needs is kept.
        pools: The pool of every query; the groups hold positions in them.
        reward: What the scores are worth, and the weights of the shots. Pointers are cut after the
            last shot T with a weight above 0, because no later pick changes a reward. Imported data
            may lack scores at shots of weight 0.
        methods: The generators (`gen_method`) whose candidates are used; None uses all. Queries
            without such a candidate are left out.

    Raises:
        PointerError: A pointer names an example outside its query's pool.
        UserError: The length of a pointer is not the number of weights, a score that the reward
            needs is missing, or no candidate is left.
    """
    queries, sizes, shots = list[int](), list[int](), reward.trained_shots
    flat, rewards = array("i"), array("f")
    for record in records:
        chosen = _chosen(record.candidates, methods)
        if not chosen:
            continue
        queries.append(record.query_id)
        sizes.append(len(chosen))
        scores = _scores(record.query_id, chosen, reward)
        for place in pools.positions_of(record.query_id, [each.pointer for each in chosen]):
            flat.extend(place[:shots])
        rewards.frombytes(np.ascontiguousarray(shot_rewards(scores, reward)[:, :shots]).tobytes())
    if not queries:
        raise UserError(
            f"the RL data have no candidate from {', '.join(sorted(methods or []))}: change "
            "rl.filter_gen_methods, or generate such candidates (section rl_data)."
        )
    counts = np.array(sizes)[:, None]
    numbers = np.arange(counts.max())
    real = numbers < counts
    # Padding repeats the first candidate of its group.
    rows = (np.cumsum(counts) - counts[:, 0])[:, None] + np.where(real, numbers, 0)
    shape = (-1, shots)
    positions = torch.from_numpy(np.frombuffer(flat, np.int32).reshape(shape)[rows])
    return Groups(
        queries=tuple(queries),
        pointers=positions,
        rewards=torch.from_numpy(np.frombuffer(rewards, np.float32).reshape(shape)[rows]),
        keep=first_occurrences(positions) & torch.from_numpy(real),
    )


def _chosen(
    candidates: Sequence[Candidate], methods: Collection[str] | None
) -> tuple[Candidate, ...]:
    return tuple(c for c in candidates if methods is None or c.gen_method in methods)


def _scores(query: int, candidates: Sequence[Candidate], reward: RewardParams) -> Scores:
    """Return the scores [G, T] that a reward is computed from."""
    rows = [_shots(query, candidate, reward.shot_weights) for candidate in candidates]
    wanted = needed_scores(reward)
    return Scores(
        hard=np.array([[float(s.vqa_correct) if s else 0.0 for s in row] for row in rows], "f4"),
        soft=np.array([[s.vqa_acc_score if s else 0.0 for s in row] for row in rows], "f4"),
        gt_prob=_optional(query, rows, "vqa_gt_prob") if "gt_prob" in wanted else None,
        relevance=_optional(query, rows, "vqa_rel_score") if "relevance" in wanted else None,
        log_prob=_log_probs(query, candidates) if "log_prob" in wanted else None,
    )


def _shots(query: int, candidate: Candidate, weights: Sequence[float]) -> list[Shot | None]:
    """Return the scored shots 1..T; None for a shot without a score, whose weight must be 0."""
    if len(candidate.pointer) != len(weights):
        raise UserError(
            f"query {query}: a pointer of the RL data has {len(candidate.pointer)} "
            f"demonstrations, but reward.shot_weights has {len(weights)} weights: set "
            f"pointer.shots to {len(candidate.pointer)}, and give as many weights."
        )
    scored = {shot.shot: shot for shot in candidate.shots}
    lacking = [k for k, w in enumerate(weights, start=1) if w > 0 and k not in scored]
    if lacking:
        raise UserError(
            f"query {query}: the RL data have no score at shot {lacking[0]}, but "
            "reward.shot_weights gives it weight: set that weight to 0.0, or run "
            "`dvc repro rl_data`."
        )
    return [scored.get(k) for k in range(1, len(weights) + 1)]


def _optional(query: int, rows: Sequence[Sequence[Shot | None]], field: str) -> Floats:
    values = [[getattr(shot, field) if shot else 0.0 for shot in row] for row in rows]
    if any(value is None for row in values for value in row):
        raise UserError(
            f"query {query}: the RL data have no {field}, which this reward needs: name it in "
            "rl_data.scores and run `dvc repro rl_data`, or choose another reward."
        )
    return np.array(values, "f4")


def _log_probs(query: int, candidates: Sequence[Candidate]) -> Floats:
    """Return the log-probability of every pointer under what generated it, [G, 1]."""
    values = [candidate.total_log_prob for candidate in candidates]
    if any(value is None for value in values):
        raise UserError(
            f"query {query}: a candidate has no log-probability, which this reward needs: "
            "let rl.filter_gen_methods name only generators that have one, or choose another "
            "reward."
        )
    return np.array(values, "f4")[:, None]


def first_occurrences(pointers: Tensor) -> Tensor:
    """Return bool [n, G]: False if an equal pointer comes earlier in its group, from [n, G, T]."""
    _, group, shots = pointers.shape
    block = max(1, LARGEST_COMPARISON // max(1, group * group * shots))
    return torch.cat([_first_occurrences(part) for part in pointers.split(block)])


def _first_occurrences(pointers: Tensor) -> Tensor:
    equal = (pointers.unsqueeze(2) == pointers.unsqueeze(1)).all(-1)
    return ~equal.tril(diagonal=-1).any(-1)
