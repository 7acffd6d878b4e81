"""Decodes pointers from a policy: greedily, by beam search, or by sampling.

Pointers are positions in the pool here. B counts queries, G pointers of a query, T picks of a
pointer, and K examples of a pool.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from lever_plus.policy.network import Encoded, Policy, uniform_log_prob
from lever_plus.policy.stop import shown


class Decoded(NamedTuple):
    """Pointers and their log-probabilities.

    Attributes:
        pointers: Positions in the pools, int [B, G, T].
        log_probs: Log-probability of each pick, [B, G, T], under the distribution that the pointers
            were decoded from (temperature included).
    """

    pointers: Tensor
    log_probs: Tensor


@torch.no_grad()
def greedy(policy: Policy, encoded: Encoded, shots: int) -> Decoded:
    """Take the most probable candidate at every step; G = 1. Arguments and errors as `beam`."""
    return beam(policy, encoded, shots, width=1)


@torch.no_grad()
def beam(policy: Policy, encoded: Encoded, shots: int, width: int) -> Decoded:
    """Return the `width` most probable pointers that beam search finds, best first.

    Args:
        policy: The policy, in eval mode: its mode is not changed.
        encoded: B queries with pools of up to K.
        shots: Length T of the pointers.
        width: Beam width G, at most the number of pointers.

    Raises:
        ValueError: A pool has fewer pointers than `width`.
    """
    batch = encoded.query.shape[0]
    pointers = torch.zeros(batch, 1, 0, dtype=torch.long)
    steps = torch.zeros(batch, 1, 0)
    for _ in range(shots):
        log_probs = policy.next_log_probs(encoded, pointers)
        pool = log_probs.shape[-1]
        totals = (steps.sum(-1, keepdim=True) + log_probs).flatten(1)
        # Of equals the first must win, whatever the batch is: topk does not promise that.
        first = totals.argmax(dim=1, keepdim=True)
        best = first if width == 1 else totals.topk(min(width, totals.shape[1]), dim=1).indices
        rows, picks = best // pool, best % pool
        pointers = torch.cat([_rows(pointers, rows), picks.unsqueeze(-1)], dim=-1)
        picked = log_probs.flatten(1).gather(1, best).unsqueeze(-1)
        steps = torch.cat([_rows(steps, rows), picked], dim=-1)
    _check_possible(steps, width)
    return Decoded(pointers, steps)


NOTHING: Final = -1
"""In a pointer: no pick, because the policy has stopped."""


@torch.no_grad()
def until_stop(policy: Policy, encoded: Encoded, decoded: Decoded, price: float) -> Decoded:
    """Return pointers in which the picks after a policy's stop are replaced by `NOTHING`.

    Args:
        policy: A policy with a stop head.
        encoded: B queries with pools of up to K.
        decoded: Whole pointers, [B, G, T].
        price: Price of a demonstration (or of a token), in points of reward.
    """
    pointers = decoded.pointers
    log_probs = policy.steps(encoded, pointers).joined()
    prices = torch.full((len(pointers),), price)
    count = shown(policy.stop_log_odds(encoded, pointers, log_probs, prices))
    left_out = torch.arange(pointers.shape[-1]) >= count.unsqueeze(-1)
    return Decoded(pointers.masked_fill(left_out, NOTHING), decoded.log_probs)


@torch.no_grad()
def sample(
    policy: Policy,
    encoded: Encoded,
    shots: int,
    count: int,
    temperature: float,
    generator: torch.Generator,
) -> Decoded:
    """Sample `count` pointers per query, independently, from softmax(log pi / temperature).

    Args:
        policy: In eval mode.
        encoded: B queries with pools of up to K.
        shots: Length T of the pointers.
        count: Number G of pointers per query; equal ones may be among them.
        temperature: Temperature of every step.
        generator: Source of randomness.

    Returns:
        Pointers and their log-probabilities under the tempered distribution.
    """
    batch = encoded.query.shape[0]
    pointers = torch.zeros(batch, count, 0, dtype=torch.long)
    steps = torch.zeros(batch, count, 0)
    for _ in range(shots):
        log_probs = policy.next_log_probs(encoded, pointers)
        log_probs = (log_probs / temperature).log_softmax(-1)
        picks = torch.multinomial(log_probs.exp().flatten(0, 1), 1, generator=generator)
        picks = picks.view(batch, count, 1)
        pointers = torch.cat([pointers, picks], dim=-1)
        steps = torch.cat([steps, log_probs.gather(-1, picks)], dim=-1)
    return Decoded(pointers, steps)


class Distinct(NamedTuple):
    """Distinct pointers, sampled without replacement.

    A pointer with log-probability p exceeds the threshold with probability
    q = 1 - exp(-exp(p - threshold)), so weights exp(p) / q give unbiased estimates.

    Attributes:
        pointers: Positions in the pools, int [B, G, T]; the first of a group is a sample of the
            policy.
        log_probs: Log-probability of each pick, [B, G, T].
        threshold: The largest perturbed log-probability of a pointer that was not drawn, [B].
    """

    pointers: Tensor
    log_probs: Tensor
    threshold: Tensor


@torch.no_grad()
def stochastic_beam(
    policy: Policy,
    encoded: Encoded,
    shots: int,
    width: int,
    temperature: float,
    generator: torch.Generator,
) -> Distinct:
    """Sample `width` distinct pointers per query from softmax(log pi / temperature).

    This is Gumbel-top-k over all pointers, by a beam search in which the perturbed log-probs of
    children are drawn under the condition that their maximum is their parent's (Kool et al. 2019,
    arXiv 1903.06059, algorithm 1). The root's is sampled, too: were it 0, the estimator that uses
    the threshold would be biased.

    Args:
        policy: In eval mode.
        encoded: B queries with pools of up to K.
        shots: Length T of the pointers.
        width: Number G of pointers per query, at most as many as there are.
        temperature: Temperature of every step; log-probabilities are those of the tempered policy.
        generator: Source of randomness.

    Raises:
        ValueError: A pool has fewer pointers than `width`.
    """
    batch, kind = encoded.query.shape[0], encoded.query
    pointers = torch.zeros(batch, 1, 0, dtype=torch.long)
    steps = torch.zeros(batch, 1, 0, dtype=kind.dtype)
    perturbed = _gumbel(torch.zeros(batch, 1, dtype=kind.dtype), generator)
    for _ in range(shots):
        log_probs = policy.next_log_probs(encoded, pointers)
        log_probs = (log_probs / temperature).log_softmax(-1)
        pool = log_probs.shape[-1]
        totals = steps.sum(-1, keepdim=True) + log_probs
        children = _conditioned(totals + _gumbel(totals, generator), perturbed).flatten(1)
        perturbed, best = children.topk(min(width + 1, children.shape[1]), dim=1)
        rows, picks = best // pool, best % pool
        pointers = torch.cat([_rows(pointers, rows), picks.unsqueeze(-1)], dim=-1)
        picked = log_probs.flatten(1).gather(1, best).unsqueeze(-1)
        steps = torch.cat([_rows(steps, rows), picked], dim=-1)
    _check_possible(perturbed[:, :width], width)
    beyond = torch.full((batch, 1), -torch.inf, dtype=kind.dtype)
    threshold = torch.cat([perturbed, beyond], dim=1)[:, width]
    return Distinct(pointers[:, :width], steps[:, :width], threshold)


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise in the shape of a tensor."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def _conditioned(children: Tensor, parents: Tensor) -> Tensor:
    """Shift perturbed log-probs of children so that their maximum is their parent's.

    The numerically stable form of Kool et al. 2019, appendix B.3. Children that are masked, or
    whose parent is impossible, stay at -inf.

    Args:
        children: [B, G, K].
        parents: [B, G].
    """
    top = children.max(dim=-1, keepdim=True).values
    parent = parents.unsqueeze(-1)
    v = parent - children + torch.log1p(-(children - top).exp())
    shifted = parent - v.clamp(min=0) - torch.log1p((-v.abs()).exp())
    possible = (children > -torch.inf) & (parent > -torch.inf)
    return torch.where(possible, shifted, -torch.inf)


@torch.no_grad()
def uniform(encoded: Encoded, shots: int, count: int, generator: torch.Generator) -> Decoded:
    """Draw `count` pointers per query uniformly; log-probabilities are those of this draw."""
    batch = encoded.valid.shape[0]
    weights = encoded.valid.float().repeat_interleave(count, dim=0)
    pointers = torch.multinomial(weights, shots, generator=generator).view(batch, count, shots)
    log_probs = uniform_log_prob(encoded.valid.sum(-1), shots)
    return Decoded(pointers, log_probs.unsqueeze(1).expand(batch, count, shots))


def _check_possible(log_probs: Tensor, width: int) -> None:
    found = log_probs.flatten(1).shape[1] > 0 and bool((log_probs > -torch.inf).all())
    if not found or log_probs.shape[1] < width:
        raise ValueError(f"a pool has fewer than {width} pointers: ask for fewer, or enlarge it")


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return the rows that are named by [B, G'] of values [B, G, T], which gives [B, G', T]."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
