"""The selector: a sequential pointer network over the pool.

Per candidate   u_i = W_c c_i + MLP[W_c c_i, W_q q, W_c c_i * W_q q]
State           s_t = [W_q q, mean(u of picked), u of last picked]   (a learned start vector at t=1)
Focus           f_t = W_q q + MLP(s_t) + e_t                         (e_t: step embedding)
Logits          l_{t,i} = C tanh(f_t . W_k u_i / (C sqrt(d))),  -inf for picked candidates
The tanh clip is that of Bello et al. 2017 (arXiv 1611.09940), C = 10. There is no set encoder: with
a few thousand queries it over-fits. Teacher forcing of whole lists is parallel.
"""

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SelectorConfig:
    """Architecture of a selector; stored in its checkpoint.

    Attributes:
        query_size: Dimensions of a query's features.
        candidate_size: Dimensions of a candidate's features.
        hidden: Width.
        shots: Longest pointer.
        logit_clip: C above.
        dropout: Dropout in training mode (SFT only; RL compares log-probs in eval mode).
    """

    query_size: int
    candidate_size: int
    hidden: int
    shots: int
    logit_clip: float
    dropout: float = 0.0

    def as_dict(self) -> dict[str, int | float]:
        """Return the fields."""
        return asdict(self)


class Encoded(NamedTuple):
    """Queries and pools, encoded once for all steps.

    query: [B, H]; candidates: u, [B, K, H]; keys: W_k u, [B, K, H].
    """

    query: Tensor
    candidates: Tensor
    keys: Tensor


class Selector(nn.Module):
    """A policy over pointers into a pool, given a query."""

    def __init__(self, config: SelectorConfig) -> None:
        """Build an untrained selector."""
        super().__init__()
        self.config = config
        width = config.hidden
        self.query_in = nn.Linear(config.query_size, width)
        self.candidate_in = nn.Linear(config.candidate_size, width)
        self.match = _mlp(3 * width, width, config.dropout)
        self.state = _mlp(3 * width, width, config.dropout)
        self.key = nn.Linear(width, width, bias=False)
        self.step = nn.Embedding(config.shots, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.drop = nn.Dropout(config.dropout)

    def encode(self, queries: Tensor, candidates: Tensor) -> Encoded:
        """Encode queries [B, query_size] and their pools [B, K, candidate_size]."""
        query = self.query_in(queries)
        candidate = self.candidate_in(self.drop(candidates))
        beside = query.unsqueeze(1).expand_as(candidate)
        u = candidate + self.match(torch.cat([candidate, beside, candidate * beside], dim=-1))
        return Encoded(query, u, self.key(u))

    def step_log_probs(self, encoded: Encoded, pointers: Tensor) -> Tensor:
        """Return the distribution of every step of given pointers, and of the step after them.

        Args:
            encoded: B queries with pools of K.
            pointers: Positions in the pool, int [B, G, T]; T may be 0.

        Returns:
            Log-probabilities [B, G, S, K] with S = min(T + 1, shots): step s given the first s
            picks; picked positions have -inf.
        """
        steps = min(pointers.shape[2] + 1, self.config.shots)
        picked = _gather(encoded.candidates, pointers)
        focus = self._focus(encoded.query, picked, steps)
        scale = self.config.logit_clip * math.sqrt(self.config.hidden)
        scores = torch.einsum("bgsh,bkh->bgsk", focus, encoded.keys) / scale
        logits = self.config.logit_clip * torch.tanh(scores)
        taken = _taken(pointers, encoded.keys.shape[1], steps)
        return logits.masked_fill(taken, -math.inf).log_softmax(-1)

    def log_probs(self, encoded: Encoded, pointers: Tensor) -> Tensor:
        """Return the log-probability of every pick of the pointers, [B, G, T]."""
        steps = self.step_log_probs(encoded, pointers)[:, :, : pointers.shape[2]]
        return steps.gather(-1, pointers.unsqueeze(-1)).squeeze(-1)

    def _focus(self, query: Tensor, picked: Tensor, steps: int) -> Tensor:
        """Return f_t [B, G, steps, H] from the picked candidates [B, G, T, H]."""
        batch, group, picks, width = picked.shape
        start = self.start.expand(batch, group, 1, width)
        last = torch.cat([start, picked], dim=2)[:, :, :steps]
        counts = torch.arange(1, picks + 1, dtype=picked.dtype).view(1, 1, -1, 1)
        means = torch.cat([start, picked.cumsum(2) / counts], dim=2)[:, :, :steps]
        beside = query[:, None, None].expand(batch, group, steps, width)
        state = self.state(torch.cat([beside, means, last], dim=-1))
        focus: Tensor = beside + state + self.step.weight[:steps]
        return focus


def _mlp(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, outputs), nn.GELU(), nn.Dropout(dropout), nn.Linear(outputs, outputs)
    )


def _gather(candidates: Tensor, pointers: Tensor) -> Tensor:
    """Return the rows [B, G, T, H] of candidates [B, K, H] that pointers [B, G, T] name."""
    batch, group, picks = pointers.shape
    index = pointers.reshape(batch, group * picks, 1).expand(-1, -1, candidates.shape[-1])
    return candidates.gather(1, index).view(batch, group, picks, candidates.shape[-1])


def _taken(pointers: Tensor, pool: int, steps: int) -> Tensor:
    """Return bool [B, G, steps, K]: candidates picked before each step."""
    batch, group, _ = pointers.shape
    one_hot = torch.nn.functional.one_hot(pointers, pool).cumsum(2)
    first = torch.zeros(batch, group, 1, pool, dtype=one_hot.dtype)
    return torch.cat([first, one_hot], dim=2)[:, :, :steps] > 0
