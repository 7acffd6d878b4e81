"""Training on a fixed list of scored candidates: what RCE and AGRO share.

Full groups in a batch, one total return a candidate, constant groups left out and counted, repeats
not kept. Dropout is 0: log-probs come from eval mode. The objective is a function; see `rce.py` and
`agro.py`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lever_plus.params import OptimParams
from lever_plus.policy.network import Selector
from lever_plus.rl.environment import DECODE_BATCH, Environment
from lever_plus.rl.fitting import Fitting, Means, Observe, epochs, shuffled_batches
from lever_plus.rl.groups import Groups
from lever_plus.rl.rewards import informative, reward_to_go


class Batch(NamedTuple):
    """Groups of a step.

    log_probs: [B, G, T] under the policy, with gradient; returns: [B, G]; keep: bool [B, G];
    rows: which of the informative groups these are; progress: share of all steps taken, in [0, 1].
    """

    log_probs: Tensor
    returns: Tensor
    keep: Tensor
    rows: Tensor
    progress: float


class Objective(NamedTuple):
    """A loss of a batch, with what the history says about it."""

    loss: Callable[[Batch], Tensor]
    figures: Callable[[Batch], dict[str, float]]


def train_offline(
    policy: Selector,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: OptimParams,
    objective: Callable[[Groups], Objective],
    seed: int,
    observe: Observe,
) -> Fitting:
    """Train a policy and return the fitting with its best epoch.

    Args:
        policy: Trained in place.
        environment: Pools, features and rewards.
        groups: Scored candidates.
        dev: Queries that the epoch is chosen on.
        params: Epochs, batch, optimiser.
        objective: Makes the objective for the informative groups.
        seed: Order of the batches.
        observe: Gets every history row.
    """
    totals = reward_to_go(groups.rewards, torch.tensor(environment.shot_weights))[..., :1]
    useful, returns = informative(totals, groups.keep), totals[..., 0]
    constant = 1.0 - useful.float().mean().item()
    groups, returns = groups.rows(useful.nonzero().flatten()), returns[useful]
    aim = objective(groups)
    generator = torch.Generator().manual_seed(seed)
    fitting = Fitting(policy.eval(), environment, params, dev, observe)
    steps = params.epochs * -(-len(groups.queries) // params.batch_size)
    for epoch in epochs(params.epochs, "training"):
        means = Means()
        for rows in shuffled_batches(len(groups.queries), params.batch_size, generator):
            part = groups.rows(rows)
            policy.eval()
            log_probs = policy.log_probs(environment.encode(policy, part.queries), part.pointers)
            progress = fitting.step / max(1, steps - 1)
            batch = Batch(log_probs, returns[rows], part.keep, rows, progress)
            loss = aim.loss(batch)
            norm = fitting.update(loss)
            means.add({"loss": loss.item(), "grad_norm": norm, **aim.figures(batch)})
        fitting.evaluate(epoch, {**means.row(), "frac_reward_zero_std": constant})
    return fitting


@torch.no_grad()
def pointer_log_probs(policy: Selector, environment: Environment, groups: Groups) -> Tensor:
    """Return the log-probability of every listed pointer under a policy in eval mode, [n, G]."""
    policy.eval()
    found = [
        policy.log_probs(environment.encode(policy, part.queries), part.pointers).sum(-1)
        for part in (
            groups.rows(rows) for rows in torch.arange(len(groups.queries)).split(DECODE_BATCH)
        )
        if part.queries
    ]
    return torch.cat(found) if found else torch.empty(groups.keep.shape)
