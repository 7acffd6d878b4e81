"""The environment of a policy: features of queries and pools, and rewards from the frozen VLM."""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lever_plus.config.reward import RewardParams, needed_scores
from lever_plus.data.examples import Example
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.sources import StoredFeatures
from lever_plus.metric.relevance import relevance
from lever_plus.policy.decoding import greedy
from lever_plus.policy.encoding import DECODE_BATCH, encode_pools
from lever_plus.policy.network import Encoded, Policy, Steps
from lever_plus.training.rewards import Floats, Scores, shot_rewards
from lever_plus.vlm.scorer import Asked, Scorer, ShotScore

PROJECT_BATCH = 8192


class Scored(NamedTuple):
    """The VLM's answers to pointers at shots 1..T, and their scores as arrays [pointers, T]."""

    answers: list[list[ShotScore]]
    scores: Scores


class Picked(NamedTuple):
    """Pointers (example ids), and the log-probability of each of their picks."""

    pointers: list[tuple[int, ...]]
    log_probs: list[list[float]]


class Realised(NamedTuple):
    """The greedy pointers of a policy, with their rewards and accuracies [queries, T]."""

    pointers: list[tuple[int, ...]]
    rewards: Floats
    accuracies: Floats


@dataclass(frozen=True)
class Environment:
    """Queries, their pools and their rewards.

    Attributes:
        pools: Pool of every query.
        examples: Queries and candidates by id.
        embeddings: Features of these examples.
        scorer: The frozen VLM and the metric.
        shots: Length T of a pointer.
        reward: What an answer at one shot is worth, and the weight of every shot; None if nothing
            is trained.
    """

    pools: Pools
    examples: Mapping[int, Example]
    embeddings: Embeddings
    scorer: Scorer
    shots: int
    reward: RewardParams | None
    _rows: dict[int, NDArray[np.int64]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def features(self) -> StoredFeatures:
        """The same features, found by an example's content instead of its id, for selectors."""
        return StoredFeatures(self.embeddings, self.examples)

    @property
    def shot_weights(self) -> tuple[float, ...]:
        """Return the weights of shots 1..T, scaled to sum to 1 so that rewards keep their unit."""
        weights = self._rewarded().shot_weights
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def trained_weights(self) -> tuple[float, ...]:
        """Return the weights up to the last one above 0: later picks change no reward."""
        return self.shot_weights[: self._rewarded().trained_shots]

    def _rewarded(self) -> RewardParams:
        if self.reward is None:
            raise ValueError("this environment has scores alone: give it a reward")
        return self.reward

    def encode(self, policy: Policy, queries: Sequence[int]) -> Encoded:
        """Encode queries and their pools with a policy; smaller pools are padded and masked."""
        return self._encode(policy, queries, None)

    def frozen(self, policy: Policy) -> "Frozen":
        """Return a frozen copy of a policy; it projects every example only once."""
        return Frozen(self, policy)

    def _encode(self, policy: Policy, queries: Sequence[int], projected: Tensor | None) -> Encoded:
        """Encode; `projected` holds the projections of all examples, None if the policy trains."""
        features, pools = self.embeddings.queries(queries), [self._pool(q) for q in queries]
        return encode_pools(policy, features, pools, self.embeddings.candidates, projected)

    def _pool(self, query: int) -> NDArray[np.int64]:
        """Return the rows of a pool's features; each pool is looked up only once."""
        if query not in self._rows:
            self._rows[query] = self.embeddings.rows_of(self.pools.of(query))
        return self._rows[query]

    def example_ids(self, queries: Sequence[int], positions: Tensor) -> list[list[tuple[int, ...]]]:
        """Turn positions [B, G, T] into pointers: for each query, G tuples of example ids."""
        rows = []
        for query, group in zip(queries, positions.tolist(), strict=True):
            pool = self.pools.of(query)
            rows.append([tuple(pool[position] for position in pointer) for pointer in group])
        return rows

    def demonstrations(self, pointers: Sequence[Sequence[int]]) -> list[list[Example]]:
        """Return the examples that pointers name."""
        return [[self.examples[i] for i in pointer] for pointer in pointers]

    def greedy_pointers(
        self, policy: Policy, queries: Sequence[int], shots: int | None = None
    ) -> list[tuple[int, ...]]:
        """Return the greedy pointer of every query (example ids), decoded in eval mode."""
        return self.greedy_decoded(policy, queries, shots).pointers

    @torch.no_grad()
    def greedy_decoded(
        self, policy: Policy, queries: Sequence[int], shots: int | None = None
    ) -> Picked:
        """Return the greedy pointers, and the log-probability of each of their picks."""
        policy.eval()
        pointers, log_probs = list[tuple[int, ...]](), list[list[float]]()
        for start in range(0, len(queries), DECODE_BATCH):
            batch = queries[start : start + DECODE_BATCH]
            decoded = greedy(policy, self.encode(policy, batch), shots or self.shots)
            pointers += [group[0] for group in self.example_ids(batch, decoded.pointers)]
            log_probs += decoded.log_probs[:, 0].tolist()
        return Picked(pointers, log_probs)

    def score(
        self,
        queries: Sequence[int],
        pointers: Sequence[Sequence[int]],
        wanted: Collection[str],
        description: str,
    ) -> Scored:
        """Ask the VLM about pointers of equal length, at every shot.

        Args:
            queries: Query id of each pointer.
            pointers: Pointers, as example ids.
            wanted: Scores that are needed in addition to hard and soft: "gt_prob", "relevance".
            description: Label of the progress bars.
        """
        asked = [self.examples[query] for query in queries]
        shown = self.demonstrations(pointers)
        answers = self.scorer.score_pointers(asked, shown, description)
        hard = np.array([[s.vqa_correct for s in row] for row in answers], dtype=np.float32)
        soft = np.array([[s.vqa_acc_score for s in row] for row in answers], dtype=np.float32)
        gt_prob = self.scorer.gt_probs(asked, shown) if "gt_prob" in wanted else None
        near = self._relevance(queries, answers) if "relevance" in wanted else None
        return Scored(answers, Scores(hard, soft, gt_prob, near))

    def _relevance(self, queries: Sequence[int], answers: Sequence[Sequence[ShotScore]]) -> Floats:
        rows = [
            [relevance(score.answer, self.examples[query].answers) for score in row]
            for query, row in zip(queries, answers, strict=True)
        ]
        return np.array(rows, dtype=np.float32)

    def rewards(
        self, queries: Sequence[int], pointers: Sequence[Sequence[int]], description: str
    ) -> Floats:
        """Return the rewards of pointers at shots 1..T, float [pointers, T]."""
        reward = self._rewarded()
        scored = self.score(queries, pointers, needed_scores(reward), description)
        return shot_rewards(scored.scores, reward)

    def rewards_alone(self, queries: Sequence[int]) -> Floats:
        """Return the rewards without demonstrations, float [queries]."""
        reward, asked = self._rewarded(), [self.examples[query] for query in queries]
        wanted = needed_scores(reward)
        alone = self.scorer.score([Asked((), example) for example in asked], "no demonstration")
        answers = [[score] for score in alone]
        scores = Scores(
            hard=np.array([[s.vqa_correct] for (s,) in answers], dtype=np.float32),
            soft=np.array([[s.vqa_acc_score] for (s,) in answers], dtype=np.float32),
            gt_prob=self.scorer.gt_probs_alone(asked)[:, None] if "gt_prob" in wanted else None,
            relevance=self._relevance(queries, answers) if "relevance" in wanted else None,
        )
        return shot_rewards(scores, reward)[:, 0]

    def added_tokens(self, queries: Sequence[int], pointers: Sequence[Sequence[int]]) -> Tensor:
        """Return how many tokens the first 0..T demonstrations add: float [pointers, T + 1].

        Raises:
            UserError: The VLM does not say how long its prompts are.
        """
        asked = [
            Asked(tuple(shown[:count]), self.examples[query])
            for query, shown in zip(queries, self.demonstrations(pointers), strict=True)
            for count in range(len(shown) + 1)
        ]
        lengths = self.scorer.prompt_tokens(asked)
        if lengths is None:
            raise UserError(
                "this VLM does not say how many tokens a prompt has: set pointer.price_per to "
                "demonstration."
            )
        table = torch.tensor(lengths, dtype=torch.float32).view(len(pointers), -1)
        return table - table[:, :1]

    def realised(self, policy: Policy, queries: Sequence[int]) -> Realised:
        """Decode greedily, and score the pointers."""
        pointers = self.greedy_pointers(policy, queries)
        reward = self._rewarded()
        scored = self.score(queries, pointers, needed_scores(reward), "dev reward")
        return Realised(pointers, shot_rewards(scored.scores, reward), scored.scores.soft)


class Frozen:
    """A frozen policy in eval mode in its environment."""

    def __init__(self, environment: Environment, policy: Policy) -> None:
        """Copy a policy, and project all examples with it."""
        self._environment, self.policy = environment, deepcopy(policy).eval()
        rows = np.arange(len(environment.embeddings.rows)).reshape(-1)
        with torch.no_grad():
            parts = [
                self.policy.project(torch.from_numpy(environment.embeddings.candidates(part)))
                for part in np.array_split(rows, max(1, len(rows) // PROJECT_BATCH))
            ]
        self._projected = torch.cat(parts)

    @torch.no_grad()
    def steps(self, queries: Sequence[int], pointers: Tensor) -> Steps:
        """Return the step distributions along pointers [B, G, T] (positions in the pools)."""
        encoded = self._environment._encode(self.policy, queries, self._projected)
        return self.policy.steps(encoded, pointers)
