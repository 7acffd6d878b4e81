"""What a policy acts in: features of queries and pools, and the VLM that scores its pointers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lever_plus.data.pool import Pools
from lever_plus.embedding.encoder import Embeddings
from lever_plus.policy.decoding import greedy
from lever_plus.policy.network import Encoded, Selector
from lever_plus.vlm.scorer import Scorer

DECODE_BATCH = 256


@dataclass(frozen=True)
class Environment:
    """Queries, their pools and their rewards.

    Attributes:
        pools: Pool of every query.
        embeddings: CLIP features.
        scorer: The frozen VLM and the metric.
        shots: Length T of a pointer.
        shot_weights: Weight of the accuracy at shots 1..T in the reward; they sum to 1.
    """

    pools: Pools
    embeddings: Embeddings
    scorer: Scorer
    shots: int
    shot_weights: tuple[float, ...]

    def encode(self, policy: Selector, queries: Sequence[int]) -> Encoded:
        """Encode queries and their pools with a policy."""
        features = torch.from_numpy(self.embeddings.queries(queries))
        pools = [self.pools.of(query) for query in queries]
        return policy.encode(features, torch.from_numpy(self.embeddings.candidates(pools)))

    def example_ids(self, queries: Sequence[int], positions: Tensor) -> list[list[tuple[int, ...]]]:
        """Turn positions [B, G, T] into pointers: for each query, G tuples of example ids."""
        rows = []
        for query, group in zip(queries, positions.tolist(), strict=True):
            pool = self.pools.of(query)
            rows.append([tuple(pool[position] for position in pointer) for pointer in group])
        return rows

    @torch.no_grad()
    def greedy_pointers(
        self, policy: Selector, queries: Sequence[int], shots: int | None = None
    ) -> list[tuple[int, ...]]:
        """Return the greedy pointer of every query (example ids), decoded in eval mode."""
        policy.eval()
        pointers = []
        for start in range(0, len(queries), DECODE_BATCH):
            batch = queries[start : start + DECODE_BATCH]
            decoded = greedy(policy, self.encode(policy, batch), shots or self.shots)
            pointers += [group[0] for group in self.example_ids(batch, decoded.pointers)]
        return pointers

    def realised(self, policy: Selector, queries: Sequence[int]) -> NDArray[np.float32]:
        """Return the accuracies of the greedy pointers at shots 1..T, float [queries, T]."""
        pointers = self.greedy_pointers(policy, queries)
        return self.scorer.rewards(queries, pointers, "dev reward")

    def realised_reward(self, policy: Selector, queries: Sequence[int]) -> float:
        """Return the mean weighted accuracy of the greedy pointers, in [0, 1]."""
        accuracies = self.realised(policy, queries)
        return float((accuracies @ np.array(self.shot_weights)).mean())
