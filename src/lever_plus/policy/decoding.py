"""Decoding: greedy, beam search and temperature sampling of pointers (positions in the pool)."""

from typing import NamedTuple

import torch
from torch import Tensor

from lever_plus.policy.network import Encoded, Selector


class Decoded(NamedTuple):
    """Pointers and their log-probabilities.

    pointers: Positions, int [B, G, T]; log_probs: per step, [B, G, T], under the distribution that
    the pointers were decoded from (temperature included).
    """

    pointers: Tensor
    log_probs: Tensor


@torch.no_grad()
def greedy(policy: Selector, encoded: Encoded, shots: int) -> Decoded:
    """Take the most probable candidate at every step; G = 1."""
    return beam(policy, encoded, shots, width=1)


@torch.no_grad()
def beam(policy: Selector, encoded: Encoded, shots: int, width: int) -> Decoded:
    """Return the `width` most probable pointers that beam search finds, best first.

    Args:
        policy: Evaluated in its present mode; call `eval()` first.
        encoded: B queries with pools of K.
        shots: Length T of the pointers.
        width: Beam width G, at most the number of pointers.
    """
    batch = encoded.query.shape[0]
    pointers = torch.zeros(batch, 1, 0, dtype=torch.long)
    steps = torch.zeros(batch, 1, 0)
    for _ in range(shots):
        log_probs = policy.step_log_probs(encoded, pointers)[:, :, -1]
        pool = log_probs.shape[-1]
        totals = (steps.sum(-1, keepdim=True) + log_probs).flatten(1)
        best = totals.topk(min(width, totals.shape[1]), dim=1).indices
        rows, picks = best // pool, best % pool
        pointers = torch.cat([_rows(pointers, rows), picks.unsqueeze(-1)], dim=-1)
        picked = log_probs.flatten(1).gather(1, best).unsqueeze(-1)
        steps = torch.cat([_rows(steps, rows), picked], dim=-1)
    return Decoded(pointers, steps)


@torch.no_grad()
def sample(
    policy: Selector,
    encoded: Encoded,
    shots: int,
    count: int,
    temperature: float,
    generator: torch.Generator,
) -> Decoded:
    """Sample `count` pointers a query, independently, from softmax(log pi / temperature).

    The log-probabilities are those of the tempered distribution that was sampled.
    """
    batch = encoded.query.shape[0]
    pointers = torch.zeros(batch, count, 0, dtype=torch.long)
    steps = torch.zeros(batch, count, 0)
    for _ in range(shots):
        log_probs = policy.step_log_probs(encoded, pointers)[:, :, -1]
        log_probs = (log_probs / temperature).log_softmax(-1)
        picks = torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=generator)
        picks = picks.view(batch, count, 1)
        pointers = torch.cat([pointers, picks], dim=-1)
        steps = torch.cat([steps, log_probs.gather(-1, picks)], dim=-1)
    return Decoded(pointers, steps)


@torch.no_grad()
def uniform(encoded: Encoded, shots: int, count: int, generator: torch.Generator) -> Decoded:
    """Draw `count` pointers a query uniformly; their log-probabilities are those of the draw."""
    batch, pool = encoded.keys.shape[:2]
    weights = torch.ones(batch * count, pool)
    pointers = torch.multinomial(weights, shots, generator=generator).view(batch, count, shots)
    left = torch.arange(pool, pool - shots, -1, dtype=torch.float32)
    return Decoded(pointers, -left.log().expand(batch, count, shots))


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return rows [B, G'] of values [B, G, T]."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
