"""The stateful policy: a sequential pointer network over the pool.

    candidate  u_i = W_c c_i + MLP[W_c c_i, W_q q, W_c c_i * W_q q]
    state      s_t = [W_q q, mean(u of picked), u of last picked]   (a learned start vector at t=1)
    focus      f_t = W_q q + MLP(s_t) + e_t                         (e_t: step embedding)
    logits     l_{t,i} = C tanh(f_t . W_k u_i / (C sqrt(H))),  -inf for picked candidates

The tanh clip is that of Bello et al. 2017 (arXiv 1611.09940); C is `policy.logit_clip`, 10 there.
There is no set encoder, because with a few thousand queries it overfits. All steps of given
pointers are computed in parallel.
"""

import math

import torch
from torch import Tensor, nn

from lever_plus.hub.linear import OneDnnLinear, linear
from lever_plus.policy.dropout import Dropout
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from lever_plus.policy.picked import picked_before


class StatefulPolicy(Policy):
    """Each step sees the query, the mean of the picks, the last pick, and the step's number."""

    def __init__(self, config: PolicyConfig) -> None:
        """Build an untrained policy."""
        super().__init__(config)
        width = config.hidden
        self.query_in = OneDnnLinear(config.query_size, width)
        self.candidate_in = OneDnnLinear(config.candidate_size, width)
        self.match = _Match(width, config.dropout)
        self.state = _State(width, config.dropout)
        self.key = nn.Linear(width, width, bias=False)
        self.step = nn.Embedding(config.shots, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.drop = Dropout(config.dropout)

    def project(self, candidates: Tensor) -> Tensor:
        """Return W_c c."""
        projected: Tensor = self.candidate_in(self.drop(candidates))
        return projected

    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Return every u_i; W_k is applied to the focus instead, where there are fewer rows."""
        query = self.query_in(queries)
        u = projected + self.match(query, projected)
        return Encoded(query, u, u, valid, queries)

    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the clipped products of each step's focus with the keys."""
        batch, group, _ = pointers.shape
        seen = picked_before(encoded.candidates, pointers[:, :, : steps.stop - 1])
        hidden = self.state(encoded.query, self._seen(seen, steps))
        # f . W_k u = (W_k^T f) . u, so W_k and the scale are merged into the MLP's last layer.
        scale = self.config.logit_clip * math.sqrt(self.config.hidden)
        merged = self.key.weight.t() / scale
        beside = encoded.query[:, None] + self.step.weight[steps.start : steps.stop]
        beside = linear(beside + self.state.last.bias, merged)
        focus = linear(hidden, merged @ self.state.last.weight) + beside[:, None]
        products = focus.flatten(1, 2) @ encoded.keys.transpose(1, 2)
        logits = self.config.logit_clip * torch.tanh(products)
        return logits.view(batch, group, len(steps), encoded.keys.shape[1])

    def _seen(self, picked: Tensor, steps: range) -> Tensor:
        """Return [mean(u of picked), u of last picked] at each step, [B, G, len(steps), 2 H]."""
        seen = picked[:, :, max(0, steps.start - 1) :]
        if steps.start:
            return seen
        batch, group, _, width = picked.shape
        start = torch.cat([self.start, self.start]).expand(batch, group, 1, width)
        return torch.cat([start, seen], dim=2)


class _Match(nn.Module):
    """MLP[c, q, c * q] of candidates c [B, K, H] and their queries q [B, H].

    The query's part of the first layer is computed once, not for every candidate.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(3 * width, width)
        self.rest = nn.Sequential(nn.GELU(), Dropout(dropout), OneDnnLinear(width, width))

    def forward(self, query: Tensor, candidates: Tensor) -> Tensor:
        for_candidate, for_query, for_both = self.first.weight.chunk(3, dim=1)
        beside = linear(query, for_query, self.first.bias).unsqueeze(1)
        both = torch.cat([candidates, candidates * query.unsqueeze(1)], dim=-1)
        out: Tensor = self.rest(beside + linear(both, torch.cat([for_candidate, for_both], dim=1)))
        return out


class _State(nn.Module):
    """MLP[q, mean, last] of steps [B, G, S, 2 H] and queries [B, H], without its last layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(3 * width, width)
        self.drop = Dropout(dropout)
        self.last = nn.Linear(width, width)

    def forward(self, query: Tensor, seen: Tensor) -> Tensor:
        width = query.shape[-1]
        for_query, for_seen = self.first.weight.split([width, 2 * width], dim=1)
        beside = linear(query, for_query, self.first.bias)[:, None, None]
        out: Tensor = self.drop(nn.functional.gelu(beside + linear(seen, for_seen)))
        return out
