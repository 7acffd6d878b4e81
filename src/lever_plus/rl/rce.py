"""RCE: reward-weighted cross-entropy on the RL data; the baseline that GRPO starts from.

Weights are softmax(R / tau) over a group, with tau falling linearly over the optimiser steps. What
tau means depends on the range of R: here R is in [0, 1], so tau 2 would weigh the best candidate
only e^.5 times as much as the worst. Dropout is 0: log-probs come from eval mode.
"""

from collections.abc import Sequence

import torch

from lever_plus.params import RceParams, TauSchedule
from lever_plus.policy.network import Selector
from lever_plus.rl import losses
from lever_plus.rl.environment import Environment
from lever_plus.rl.fitting import Fitting, Means, Observe, epochs, shuffled_batches
from lever_plus.rl.groups import Groups
from lever_plus.rl.rewards import informative, reward_to_go


def train_rce(
    policy: Selector,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: RceParams,
    tau: TauSchedule,
    seed: int,
    observe: Observe,
) -> Fitting:
    """Train a policy on groups of scored candidates and return the fitting with its best epoch."""
    weights = torch.tensor(environment.shot_weights)
    totals = reward_to_go(groups.rewards, weights)[..., :1]
    useful, returns = informative(totals, groups.keep), totals[..., 0]
    constant = 1.0 - useful.float().mean().item()
    groups, returns = groups.rows(useful.nonzero().flatten()), returns[useful]
    generator = torch.Generator().manual_seed(seed)
    fitting = Fitting(policy.eval(), environment, params, dev, observe)
    steps = params.epochs * -(-len(groups.queries) // params.batch_size)
    for epoch in epochs(params.epochs, "RCE"):
        means = Means()
        for rows in shuffled_batches(len(groups.queries), params.batch_size, generator):
            part = groups.rows(rows)
            now = tau.start + (tau.end - tau.start) * fitting.step / max(1, steps - 1)
            policy.eval()
            encoded = environment.encode(policy, part.queries)
            log_probs = policy.log_probs(encoded, part.pointers)
            loss = losses.rce(log_probs, returns[rows], part.keep, now)
            norm = fitting.update(loss)
            means.add({"loss": loss.item(), "grad_norm": norm, "tau": now})
        fitting.evaluate(epoch, {**means.row(), "frac_reward_zero_std": constant})
    return fitting
