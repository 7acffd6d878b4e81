"""The residual policy: static scores, and a correction of the focus by what was picked.

    focus  f_1 = f,  f_t = f + W_o GELU(W [f, mean(k of picked), k of last picked] + b + e_t)
    logits l_{t,i} = f_t . k_i / temperature,  -inf for picked candidates

for steps t >= 2, with a step embedding e_t. The focus f (the query with what it attends to in its
pool) and the keys k are those of `v2.py`. W_o is 0 at the start, so an untrained policy is a v2
policy to the last bit. It can learn all that static scores can express, and besides that which
demonstrations complement each other.
"""

from dataclasses import replace

from torch import Tensor, nn

from lever_plus.hub.linear import linear
from lever_plus.policy.dropout import Dropout
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from lever_plus.policy.picked import picked_before
from lever_plus.policy.v2 import V2Policy


class ResidualPolicy(Policy):
    """A v2 policy whose later steps see what was picked, and how many picks there were."""

    def __init__(self, config: PolicyConfig) -> None:
        """Build an untrained policy."""
        super().__init__(config)
        width = config.hidden
        self.static = V2Policy(replace(config, highest_price=0.0))
        self.seen = nn.Linear(3 * width, width)
        self.step = nn.Embedding(config.shots, width)
        self.drop = Dropout(config.dropout)
        self.correction = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.correction.weight)

    def project(self, candidates: Tensor) -> Tensor:
        """Project as the static policy does."""
        return self.static.project(candidates)

    def relate(self, queries: Tensor, projected: Tensor, valid: Tensor) -> Encoded:
        """Encode as the static policy does."""
        return self.static.relate(queries, projected, valid)

    def scores(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return the static logits, to which a correction is added from the second step on."""
        # Added to the logits, not to the focus: so a correction of 0 changes no bit of them.
        logits = self.static.scores(encoded, pointers, steps)
        if steps.stop == 1:
            return logits
        correction = self._correction(encoded, pointers, steps)
        products = correction.flatten(1, 2) @ encoded.keys.transpose(1, 2)
        return logits + (products / self.config.temperature).view_as(logits)

    def _correction(self, encoded: Encoded, pointers: Tensor, steps: range) -> Tensor:
        """Return what is added to the focus at each step, [B, G, len(steps), H]; 0 at step 0."""
        seen = picked_before(encoded.keys, pointers[:, :, : steps.stop - 1])
        seen = seen[:, :, max(0, steps.start - 1) :]
        width = self.config.hidden
        for_query, for_seen = self.seen.weight.split([width, 2 * width], dim=1)
        beside = linear(encoded.query, for_query, self.seen.bias)[:, None, None]
        beside = beside + self.step.weight[max(1, steps.start) : steps.stop]
        hidden = nn.functional.gelu(beside + linear(seen, for_seen))
        found: Tensor = linear(self.drop(hidden), self.correction.weight)
        if steps.start:
            return found
        return nn.functional.pad(found, (0, 0, 1, 0))
