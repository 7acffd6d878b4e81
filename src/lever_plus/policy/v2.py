"""The v2 policy: the older system's cross-attention pointer with static scores.

Features are projected to width H without bias. The query attends to its pool (each layer: one head,
residual, layer norm). Query and candidates each pass through a projection that starts near the
identity. Logits are their cosines divided by a temperature. The score of a candidate never depends
on what was picked, so a pointer is drawn from a Plackett-Luce distribution: a ranking without
replacement. Deviations from the older system: picked candidates get -inf instead of -100; query and
candidates have separate input projections, because here they differ in content (a candidate shows
its answer).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import MultiheadAttention

from lever_plus.policy.dropout import Dropout, dropped
from lever_plus.policy.network import Encoded, Policy, PolicyConfig

NEAR_IDENTITY = 0.01
"""Standard deviation of the noise that is added to the identity at the start."""


class V2Policy(Policy):
    """Scores every candidate once."""

    def __init__(self, config: PolicyConfig) -> None:
        """Build an untrained policy."""
        super().__init__(config)
        width = config.hidden
        self.query_in = nn.Linear(config.query_size, width, bias=False)
        self.candidate_in = nn.Linear(config.candidate_size, width, bias=False)
        self.attention = nn.ModuleList(
            MultiheadAttention(width, 1, dropout=config.dropout, batch_first=True)
            for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.layers))
        self.query_out = _near_identity(width)
        self.candidate_out = _near_identity(width)
        self.drop = Dropout(config.dropout)

    def project(self, candidates: Tensor) -> Tensor:
        """Return candidates at width H and their keys, side by side, [..., 2 H]."""
        projected: Tensor = self.candidate_in(candidates)
        keys = _unit(self.candidate_out(self.drop(projected)))
        return torch.cat([projected, keys], dim=-1)

    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Encode queries, each with what it attends to in its pool, and their candidates."""
        query = self.query_in(queries)
        pool, keys = projected.chunk(2, dim=-1)
        for attention, norm in zip(self.attention, self.norms, strict=True):
            query = norm(query + attended(cast(MultiheadAttention, attention), query, pool, valid))
        focus = _unit(self.query_out(self.drop(query)))
        return Encoded(focus, pool, keys, valid, queries)

    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the same logits at every step."""
        cosines = (encoded.keys @ encoded.query.unsqueeze(-1)).squeeze(-1)
        logits = cosines / self.config.temperature
        batch, group, _ = pointers.shape
        return logits[:, None, None].expand(batch, group, len(steps), -1)


def attended(attention: MultiheadAttention, query: Tensor, pool: Tensor, valid: Tensor) -> Tensor:
    """Return the output of one attention head for each query in its pool, [B, H].

    It equals what the module itself returns, but is faster: each pool has one query, so W_k and W_v
    are applied on the query's side, where there are fewer rows. The keys' bias is left out, because
    it adds the same number to all logits of a query.

    Args:
        attention: The attention, with one head.
        query: [B, H].
        pool: [B, K, H].
        valid: bool [B, K], False for padding.
    """
    width = query.shape[-1]
    for_query, for_key, for_value = attention.in_proj_weight.chunk(3)
    of_query, _, of_value = attention.in_proj_bias.chunk(3)
    asked = nn.functional.linear(query, for_query, of_query) @ for_key / width**0.5
    logits = (pool @ asked.unsqueeze(-1)).squeeze(-1).masked_fill(~valid, -torch.inf)
    weights = logits.softmax(-1)
    if attention.training:
        weights = dropped(weights, attention.dropout)
    seen = (weights.unsqueeze(1) @ pool).squeeze(1)
    values = nn.functional.linear(seen, for_value) + weights.sum(-1, keepdim=True) * of_value
    out: Tensor = attention.out_proj(values)
    return out


def _near_identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width) + NEAR_IDENTITY * torch.randn(width, width))
        layer.bias.zero_()
    return layer


def _unit(values: Tensor) -> Tensor:
    return nn.functional.normalize(values, dim=-1)
