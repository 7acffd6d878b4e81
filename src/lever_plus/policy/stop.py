"""The stop head: whether a policy shows one more demonstration, at a price.

It sees what a policy knows after s = 0..T-1 picks: the focus of the query, the mean and the last of
the picked keys, s, how sure the policy is of its next pick (largest log-probability, entropy), and
the price of a demonstration. One head serves all prices, so that whoever uses a selector chooses
what a demonstration may cost.
"""

import torch
from torch import Tensor, nn

from lever_plus.policy.network import Encoded
from lever_plus.policy.picked import picked_before

SCALE = 0.01
"""Prices are seen as log(1 + price / SCALE): about as far apart as they differ in effect."""


class StopHead(nn.Module):
    """An MLP over the state; it gives the log-odds of stopping."""

    def __init__(self, width: int, shots: int) -> None:
        """Build an untrained head: it is undecided everywhere."""
        super().__init__()
        self.first = nn.Linear(3 * width + 3, width)
        self.step = nn.Embedding(shots, width)
        self.last = nn.Linear(width, 1)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, -1.0)

    def forward(
        self, encoded: Encoded, pointers: Tensor, log_probs: Tensor, prices: Tensor
    ) -> Tensor:
        """Return the log-odds of stopping after 0, 1, ..., T - 1 picks, [B, G, T].

        Args:
            encoded: B queries with their pools.
            pointers: Positions in the pools, int [B, G, T].
            log_probs: Distributions that the picks come from, [B, G, T, K].
            prices: Of a demonstration, in points of reward, [B].
        """
        batch, group, picks = pointers.shape
        seen = picked_before(encoded.keys, pointers[:, :, : picks - 1])
        seen = nn.functional.pad(seen, (0, 0, 1, 0))
        sure = log_probs.amax(-1)
        live = log_probs > -torch.inf
        unsure = -(log_probs.exp() * log_probs.masked_fill(~live, 0.0)).sum(-1)
        cost = torch.log1p(prices / SCALE)[:, None, None].expand(batch, group, picks)
        query = encoded.query[:, None, None].expand(batch, group, picks, -1)
        state = torch.cat([query, seen, torch.stack([sure, unsure, cost], dim=-1)], dim=-1)
        hidden = nn.functional.gelu(self.first(state) + self.step.weight[:picks])
        odds: Tensor = self.last(hidden).squeeze(-1)
        return odds


def stop_log_probs(log_odds: Tensor) -> Tensor:
    """Return the log-probability of ending with 0, 1, ..., T demonstrations, [..., T + 1].

    Args:
        log_odds: Of stopping after 0..T-1 picks, [..., T]; after T picks nothing is left to decide.
    """
    going = nn.functional.logsigmoid(-log_odds).cumsum(-1)
    stopping = nn.functional.logsigmoid(log_odds)
    return torch.cat([nn.functional.pad(going, (1, 0))[..., :-1] + stopping, going[..., -1:]], -1)
