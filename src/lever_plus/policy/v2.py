"""The v2 policy: the older system's cross-attention pointer with static scores.

Features go to width H without bias; the query attends over its pool (one head a layer, residual,
layer norm); query and candidates pass a near-identity projection each; logits are their cosine
over a temperature. A candidate's score never depends on what was picked: a pointer's distribution
is that of Plackett and Luce, a ranking without replacement. Deviations: picked candidates get -inf
instead of -100, and query and candidates have an input projection each, because ours hold different
parts (a candidate shows its answer).
"""

import torch
from torch import Tensor, nn

from lever_plus.policy.network import Encoded, Policy, PolicyConfig

NEAR_IDENTITY = 0.01
"""Standard deviation of what is added to the identity."""


class V2Policy(Policy):
    """Scores every candidate once."""

    def __init__(self, config: PolicyConfig) -> None:
        """Build an untrained policy."""
        super().__init__(config)
        width = config.hidden
        self.query_in = nn.Linear(config.query_size, width, bias=False)
        self.candidate_in = nn.Linear(config.candidate_size, width, bias=False)
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(width, 1, dropout=config.dropout, batch_first=True)
            for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.layers))
        self.query_out = _near_identity(width)
        self.candidate_out = _near_identity(width)
        self.drop = nn.Dropout(config.dropout)

    def project(self, candidates: Tensor) -> Tensor:
        """Return candidates at width H."""
        projected: Tensor = self.candidate_in(candidates)
        return projected

    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Encode queries, each with what it attends to in its pool, and candidates."""
        query, pool = self.query_in(queries).unsqueeze(1), projected
        for attention, norm in zip(self.attention, self.norms, strict=True):
            seen, _ = attention(query, pool, pool, key_padding_mask=~valid, need_weights=False)
            query = norm(query + seen)
        focus = _unit(self.query_out(self.drop(query.squeeze(1))))
        keys = _unit(self.candidate_out(self.drop(pool)))
        return Encoded(focus, pool, keys, valid, queries)

    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the same logits at every step."""
        cosines = torch.einsum("bh,bkh->bk", encoded.query, encoded.keys)
        logits = cosines / self.config.temperature
        batch, group, _ = pointers.shape
        return logits[:, None, None].expand(batch, group, len(steps), -1)


def _near_identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width) + NEAR_IDENTITY * torch.randn(width, width))
        layer.bias.zero_()
    return layer


def _unit(values: Tensor) -> Tensor:
    return nn.functional.normalize(values, dim=-1)
