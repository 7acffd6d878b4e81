"""Decoding of pointers (positions in the pool).

Greedy, beam search, sampling with and without replacement, uniform.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from lever_plus.policy.network import Encoded, Policy, uniform_log_prob
from lever_plus.policy.stop import shown


class Decoded(NamedTuple):
    """Pointers and their log-probabilities.

    pointers: Positions, int [B, G, T]; log_probs: per step, [B, G, T], under the distribution that
    the pointers were decoded from (temperature included).
    """

    pointers: Tensor
    log_probs: Tensor


@torch.no_grad()
def greedy(policy: Policy, encoded: Encoded, shots: int) -> Decoded:
    """Take the most probable candidate at every step; G = 1."""
    return beam(policy, encoded, shots, width=1)


@torch.no_grad()
def beam(policy: Policy, encoded: Encoded, shots: int, width: int) -> Decoded:
    """Return the `width` most probable pointers that beam search finds, best first.

    Args:
        policy: Evaluated in its present mode; call `eval()` first.
        encoded: B queries with pools of K.
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
        # Of equals the first, whatever the batch: topk promises none.
        first = totals.argmax(dim=1, keepdim=True)
        best = first if width == 1 else totals.topk(min(width, totals.shape[1]), dim=1).indices
        rows, picks = best // pool, best % pool
        pointers = torch.cat([_rows(pointers, rows), picks.unsqueeze(-1)], dim=-1)
        picked = log_probs.flatten(1).gather(1, best).unsqueeze(-1)
        steps = torch.cat([_rows(steps, rows), picked], dim=-1)
    _check_possible(steps, width)
    return Decoded(pointers, steps)


NOTHING: Final = -1
"""Stands in a pointer for a pick that is not shown."""


@torch.no_grad()
def until_stop(policy: Policy, encoded: Encoded, decoded: Decoded, price: float) -> Decoded:
    """Return pointers up to where a policy stops: `NOTHING` in the place of later picks.

    Args:
        policy: With a stop head.
        encoded: B queries with pools of up to K.
        decoded: Pointers [B, G, T] in full length.
        price: Of a demonstration.
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
    """Sample `count` pointers a query, independently, from softmax(log pi / temperature).

    The log-probabilities are those of the tempered distribution that was sampled.
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

    pointers: int [B, G, T], the first of a group is a sample of the policy; log_probs: per step,
    [B, G, T]; threshold: [B], the largest perturbed log-probability that was not drawn. A pointer
    of log-probability p is above the threshold with probability q = 1 - exp(-exp(p - threshold)):
    weights exp(p) / q give estimates without bias.
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
    """Sample `width` distinct pointers a query from softmax(log pi / temperature).

    Gumbel-top-k over all pointers, found by a beam search whose children's perturbed log-probs are
    drawn under the condition that their maximum is their parent's (Kool et al. 2019, arXiv
    1903.06059, algorithm 1). The root's is sampled too: with 0 in its place the threshold's
    estimator would be biased.

    Args:
        policy: In eval mode.
        encoded: B queries with pools of up to K.
        shots: Length T of the pointers.
        width: Pointers a query, at most as many as there are.
        temperature: Of every step; the log-probabilities are those of the tempered policy.
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
    """Return standard Gumbel noise of a tensor's shape."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def _conditioned(children: Tensor, parents: Tensor) -> Tensor:
    """Shift perturbed children [B, G, K] so that their maximum is their parent's [B, G], stably.

    Kool et al. 2019, appendix B.3. Children of impossible parents, and masked ones, stay at -inf.
    """
    top = children.max(dim=-1, keepdim=True).values
    parent = parents.unsqueeze(-1)
    v = parent - children + torch.log1p(-(children - top).exp())
    shifted = parent - v.clamp(min=0) - torch.log1p((-v.abs()).exp())
    possible = (children > -torch.inf) & (parent > -torch.inf)
    return torch.where(possible, shifted, -torch.inf)


@torch.no_grad()
def uniform(encoded: Encoded, shots: int, count: int, generator: torch.Generator) -> Decoded:
    """Draw `count` pointers a query uniformly; their log-probabilities are those of the draw."""
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
    """Return rows [B, G'] of values [B, G, T]."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
