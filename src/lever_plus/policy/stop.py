"""The stop head: decides whether a policy shows one more demonstration at a given price.

After each s = 0..T-1 picks it sees: the query's features (not the policy's focus, which does not
show which questions need no help), the mean and the last of the picked keys, the number s, how sure
the policy is of its next pick and was of those before, and the price. One head serves all prices up
to the highest that it was trained with, so the user of a selector chooses the price. The head has
its own dropout, and no log-probability of a pick depends on it.
"""

import torch
from torch import Tensor, nn

from lever_plus.policy.dropout import Dropout

DROPOUT_IN, DROPOUT = 0.2, 0.5
LEAST_LOG_PROB = -10.0
"""Lower log-probabilities of picks are seen as this one: all such picks are equally unlikely."""
RESOLUTION = 100.0
"""Prices are seen as log(1 + RESOLUTION * price / highest), about as far apart as their effects."""


class StopHead(nn.Module):
    """An MLP over the state, with one output per step: the log-odds of stopping there."""

    def __init__(self, query_size: int, width: int, shots: int, highest_price: float) -> None:
        """Build an untrained head, which is undecided everywhere.

        Args:
            query_size: Dimensions of a query's features.
            width: Width of the policy's keys, and of the hidden layer.
            shots: Length T of the longest pointer.
            highest_price: The highest price of its training, above 0.
        """
        super().__init__()
        self.highest_price = highest_price
        self.query = nn.Linear(query_size, width)
        self.state = nn.Linear(2 * width + 5, width, bias=False)
        self.step = nn.Embedding(shots, width)
        self.last = nn.Linear(width, shots)
        self.drop_in, self.drop = Dropout(DROPOUT_IN), Dropout(DROPOUT)
        for weight in (self.step.weight, self.last.weight, self.last.bias):
            nn.init.zeros_(weight)

    def forward(
        self, queries: Tensor, picked: Tensor, log_probs: Tensor, pointers: Tensor, prices: Tensor
    ) -> Tensor:
        """Return the log-odds of stopping after 0, 1, ..., T - 1 picks, [B, G, T].

        Args:
            queries: Features of the queries, [B, query_size].
            picked: [mean, last] of the keys of the first 1..T - 1 picks, [B, G, T - 1, 2 width].
            log_probs: The distributions that the picks come from, [B, G, T, K].
            pointers: Positions in the pools, int [B, G, T].
            prices: Price for each query, [B].
        """
        picks = pointers.shape[-1]
        chosen = log_probs.gather(-1, pointers.unsqueeze(-1)).squeeze(-1).clamp(min=LEAST_LOG_PROB)
        before = nn.functional.pad(chosen[..., :-1], (1, 0))
        live = log_probs > -torch.inf
        entropy = -(log_probs.exp() * log_probs.masked_fill(~live, 0.0)).sum(-1)
        cost = torch.log1p(RESOLUTION / self.highest_price * prices)[:, None, None]
        known = [log_probs.amax(-1), entropy, before, before.cumsum(-1), cost.expand_as(before)]
        seen = nn.functional.pad(self.drop_in(picked), (0, 0, 1, 0))
        state = self.state(torch.cat([seen, torch.stack(known, dim=-1)], dim=-1))
        query = self.query(self.drop_in(queries))[:, None, None]
        hidden = self.drop(nn.functional.gelu(state + query + self.step.weight[:picks]))
        odds: Tensor = (hidden * self.last.weight[:picks]).sum(-1) + self.last.bias[:picks]
        return odds


def stop_probabilities(log_odds: Tensor) -> Tensor:
    """Return the probability of ending with 0, 1, ..., T demonstrations, [..., T + 1].

    Args:
        log_odds: Log-odds of stopping after 0..T-1 picks, [..., T]; after T picks it always stops.
    """
    stop = torch.sigmoid(log_odds)
    reached = nn.functional.pad((1 - stop).cumprod(-1), (1, 0), value=1.0)
    return reached * nn.functional.pad(stop, (0, 1), value=1.0)


def shown(log_odds: Tensor) -> Tensor:
    """Return how many demonstrations are shown, int [...]: those up to the first stop, else all T.

    Args:
        log_odds: Log-odds of stopping after 0..T-1 picks, [..., T]; it stops where they are above
            0.
    """
    stop = nn.functional.pad(log_odds > 0, (0, 1), value=True)
    return stop.int().argmax(-1)
