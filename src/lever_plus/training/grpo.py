"""GRPO: rounds of fresh candidates, credit per step, exact KL to a frozen reference.

One round: sample G pointers a query from the policy, score every prefix with the VLM, then train
on them for a few epochs:
    loss = -mean min(rho_t A_t, clip(rho_t) A_t) + beta * mean sum_t KL(pi_t || reference_t)
    A_t  = G_t - leave-one-out mean of the group's G_t,  G_t = sum_{k>=t} w_k R_k
Deviations from Shao et al. 2024: reward-to-go per step instead of one advantage a sequence, no
division by the group's standard deviation, clip-higher, and the KL is exact because the pool is
small enough for whole step distributions. Only the newest round is trained on. With `rounds: 0` the
RL data take the place of fresh candidates, and the policy at the start that of the sampler. All
log-probs come from eval mode.

The older system's choices can be had for comparison (`presets/seed-v3.yaml`): total credit,
z-scored advantages, a sequence ratio, k3 as penalty, and a beta that is moved by half after an
epoch whose KL to the reference is outside `kl_target`, within [0.001, 10].

Beside what every history says: `surrogate`, `kl_penalty` (before beta) and `kl_share`, its share of
the loss's absolute parts; `kl_beta`; `clip_ratio`, the share of clipped steps (or pointers).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lever_plus.config.training import GrpoParams
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.groups import Groups, first_occurrences
from lever_plus.training.returns import (
    informative,
    leave_one_out,
    reward_to_go,
    statistics,
    total,
    z_score,
)
from lever_plus.training.rl_data.candidates import fresh_groups
from lever_plus.training.trainer import Fitting, Means, Row, Run, shuffled_batches

BETA_RANGE = (0.001, 10.0)
BETA_FACTOR = 1.5


@dataclass(frozen=True)
class Round:
    """The informative groups of a round, with what training on them needs.

    Attributes:
        groups: Candidates.
        advantages: [n, G, T].
        old: Log-probs [n, G, T] under the policy that drew them; None: under that at the start.
        statistics: What the history says about the round as a whole.
    """

    groups: Groups
    advantages: Tensor
    old: Tensor | None
    statistics: dict[str, float]


def train_grpo(
    policy: Policy,
    environment: Environment,
    offline: Groups,
    dev: Sequence[int],
    params: GrpoParams,
    run: Run,
) -> Fitting:
    """Train a policy and return the fitting with its best epoch.

    Args:
        policy: The policy to start from; a frozen copy of it is the reference.
        environment: Pools, features and rewards.
        offline: Groups of the RL data; their queries are the training queries.
        dev: Queries that the epoch is chosen on.
        params: Rounds, group size, clip, beta.
        run: Seed, observer, kept state.
    """
    rounds = max(1, params.rounds)
    steps = rounds * params.epochs * -(-len(offline.queries) // params.batch_size)
    fitting = Fitting(policy.eval(), environment, params, dev, run, steps)
    beta = fitting.kept.get("beta", torch.tensor(params.kl_beta, dtype=torch.float64)).item()
    current = None
    for epoch in fitting.epochs(rounds * params.epochs, "GRPO"):
        number, done = divmod(epoch - 1, params.epochs)
        if done and current is None:  # killed within a round
            groups = Groups.restored(offline.queries, fitting.kept)
            current = _prepare(groups, fitting.kept.get("old"), environment, params)
        elif current is None or not done:
            groups, old = offline, None
            if params.rounds:
                groups, old = fresh_groups(
                    policy, environment, offline.queries, params.group_size, fitting.generator
                )
            current = _prepare(groups, old, environment, params)
            fitting.kept = groups.tensors() if old is None else {**groups.tensors(), "old": old}
        row = _epoch(fitting, current, params, beta)
        beta = _moved(beta, row, params)
        fitting.kept = {**fitting.kept, "beta": torch.tensor(beta, dtype=torch.float64)}
        fitting.evaluate(epoch, {"round": number + 1, **row, **current.statistics})
    return fitting


def _prepare(
    groups: Groups, old: Tensor | None, environment: Environment, params: GrpoParams
) -> Round:
    """Compute advantages, and drop constant groups."""
    credit = reward_to_go if params.credit == "reward_to_go" else total
    scaled = leave_one_out if params.advantage == "leave_one_out" else z_score
    returns = credit(groups.rewards, torch.tensor(environment.shot_weights))
    advantages = scaled(returns, groups.keep)
    figures = statistics(returns, advantages, groups.keep)
    distinct = first_occurrences(groups.pointers) & groups.keep
    figures["distinct_share"] = (distinct.sum() / groups.keep.sum()).item()
    rows = informative(returns, groups.keep).nonzero().flatten()
    known = None if old is None else old[rows]
    return Round(groups.rows(rows), advantages[rows], known, figures)


def _epoch(fitting: Fitting, current: Round, params: GrpoParams, beta: float) -> Row:
    """Train one epoch on a round; return its mean statistics."""
    part, means = partial(_part, fitting, current, params, beta), Means()
    fitting.policy.eval()
    count = len(current.groups.queries)
    for rows in shuffled_batches(count, params.batch_size, fitting.generator):
        figures = fitting.update(rows, part)
        penalty = beta * abs(figures["kl_penalty"])
        whole = abs(figures["surrogate"]) + penalty
        means.add({**figures, "kl_share": penalty / whole if whole else 0.0})
    return {**means.row(), "kl_beta": beta}


def _part(fitting: Fitting, current: Round, params: GrpoParams, beta: float, rows: Tensor) -> Part:
    """Return loss and figures of some of a round's groups."""
    part = current.groups.rows(rows)
    encoded = fitting.environment.encode(fitting.policy, part.queries)
    steps = fitting.policy.steps(encoded, part.pointers)
    log_probs = steps.picked(part.pointers)
    reference = fitting.start.steps(part.queries, part.pointers)
    before = reference.picked(part.pointers)
    old = before if current.old is None else current.old[rows]
    surrogate, clipped = _surrogate(log_probs, old, current.advantages[rows], part, params)
    if params.kl == "exact":
        by_step = map(losses.exact_kl, steps, reference)
        first, later = (step.sum(-1) for step in by_step)
        divergence = first + later
    else:
        divergence = losses.k3(log_probs.sum(-1), before.sum(-1))
    kl = losses.group_mean(divergence, part.keep)
    figures = {
        "surrogate": surrogate.item(),
        "kl_penalty": kl.item(),
        "clip_ratio": clipped.item(),
    }
    return Part(surrogate + beta * kl, figures)


def _surrogate(
    log_probs: Tensor, old: Tensor, advantages: Tensor, part: Groups, params: GrpoParams
) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate and the share of clipped ratios, of steps or of pointers."""
    if params.ratio == "sequence":
        log_probs, old = log_probs.sum(-1, keepdim=True), old.sum(-1, keepdim=True)
        advantages = advantages[..., :1]
    return losses.grpo(log_probs, old, advantages, part.keep, params.clip_low, params.clip_high)


def _moved(beta: float, row: Row, params: GrpoParams) -> float:
    """Return the beta of the next epoch."""
    if params.kl_target is None or "kl_penalty" not in row:
        return beta
    low, high = params.kl_target
    measured = float(row["kl_penalty"])
    factor = BETA_FACTOR if measured > high else 1 / BETA_FACTOR if measured < low else 1.0
    return min(max(beta * factor, BETA_RANGE[0]), BETA_RANGE[1])
