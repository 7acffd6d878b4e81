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

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lever_plus.config.grpo import GrpoParams
from lever_plus.config.offline import ConstantGroups
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment, Frozen
from lever_plus.training.gradients import Part
from lever_plus.training.groups import Candidates, Groups, first_occurrences
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.returns import (
    informative,
    leave_one_out,
    reward_to_go,
    statistics,
    total,
    trained_rows,
    z_score,
)
from lever_plus.training.rl_data.candidates import fresh_groups
from lever_plus.training.state import StateDict
from lever_plus.training.trainer import Means, Run, Trainer, shuffled_batches

BETA_RANGE = (0.001, 10.0)
BETA_FACTOR = 1.5


def train_grpo(
    policy: Policy,
    environment: Environment,
    offline: Groups,
    dev: Sequence[int],
    params: GrpoParams,
    run: Run,
    constant_groups: ConstantGroups = "drop",
) -> Trained:
    """Train a policy in rounds of fresh candidates.

    Args:
        policy: The policy to start from; a frozen copy of it is the reference.
        environment: Pools, features and rewards.
        offline: Groups of the RL data; their queries are the training queries.
        dev: Queries that the epoch is chosen on.
        params: Rounds, group size, clip, beta.
        run: Seed, observer, kept state.
        constant_groups: Whether groups that are constant at every step are left out. In training,
            they have advantage 0: the KL alone moves the policy there.
    """
    policy.eval()
    reference = environment.frozen(policy)
    epochs = max(1, params.rounds) * params.epochs
    steps = epochs * -(-len(offline.queries) // params.batch_size)
    trainer = Trainer(policy, params, run, steps)
    evaluator = DevEvaluator(environment, dev, reference)
    best = BestCheckpoint()
    candidates, penalty = Candidates(offline), Penalty(params.kl_beta, params.kl_target)
    loop = Loop(run, trainer, evaluator, best, candidates=candidates, penalty=penalty)
    loop.begin()
    for epoch in loop.epochs(epochs, "GRPO"):
        number, done = divmod(epoch - 1, params.epochs)
        if params.rounds and not done:
            candidates.groups, candidates.log_probs = fresh_groups(
                policy, environment, offline.queries, params.group_size, trainer.generator
            )
        current = _prepared(candidates, environment, params, constant_groups)
        part = partial(_part, policy, environment, reference, current, params, penalty.beta)
        means = Means()
        policy.eval()
        count = len(current.groups.queries)
        for rows in shuffled_batches(count, params.batch_size, trainer.generator):
            figures = trainer.update(rows, part)
            share = _share(penalty.beta * figures["kl_penalty"], figures["surrogate"])
            means.add({**figures, "kl_share": share})
        row = {"round": number + 1, **means.row(), "kl_beta": penalty.beta, **current.statistics}
        if count:  # the next epoch's beta is kept with this epoch's state
            penalty.move(float(row["kl_penalty"]))
        loop.evaluate(epoch, row)
    return loop.trained()


class Round(NamedTuple):
    """The trained groups of a round, with what training on them needs.

    groups: Candidates; advantages: [n, G, T]; old: log-probs [n, G, T] under the policy that drew
    them, None: under the reference; statistics: what the history says about the whole round.
    """

    groups: Groups
    advantages: Tensor
    old: Tensor | None
    statistics: dict[str, float]


def _prepared(
    candidates: Candidates,
    environment: Environment,
    params: GrpoParams,
    constant_groups: ConstantGroups,
) -> Round:
    """Compute advantages, and drop groups that are not trained on."""
    groups, old = candidates.groups, candidates.log_probs
    credit = reward_to_go if params.credit == "reward_to_go" else total
    scaled = leave_one_out if params.advantage == "leave_one_out" else z_score
    returns = credit(groups.rewards, torch.tensor(environment.trained_weights))
    # What rounding leaves of a constant group must not push.
    useful = informative(returns, groups.keep)[:, None, None]
    advantages = scaled(returns, groups.keep) * useful
    figures = statistics(returns, advantages, groups.keep)
    distinct = first_occurrences(groups.pointers) & groups.keep
    figures["distinct_share"] = (distinct.sum() / groups.keep.sum()).item()
    rows = trained_rows(returns, groups.keep, constant_groups)
    known = None if old is None else old[rows]
    return Round(groups.rows(rows), advantages[rows], known, figures)


def _part(
    policy: Policy,
    environment: Environment,
    reference: Frozen,
    current: Round,
    params: GrpoParams,
    beta: float,
    rows: Tensor,
) -> Part:
    """Return loss and figures of some of a round's groups."""
    part = current.groups.rows(rows)
    steps = policy.steps(environment.encode(policy, part.queries), part.pointers)
    log_probs = steps.picked(part.pointers)
    at_reference = reference.steps(part.queries, part.pointers)
    before = at_reference.picked(part.pointers)
    old = before if current.old is None else current.old[rows]
    surrogate, clipped = _surrogate(log_probs, old, current.advantages[rows], part, params)
    if params.kl == "exact":
        by_step = map(losses.exact_kl, steps, at_reference)
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


def _share(penalty: float, surrogate: float) -> float:
    """Return the share of the penalty in the absolute parts of a loss."""
    whole = abs(surrogate) + abs(penalty)
    return abs(penalty) / whole if whole else 0.0


class Penalty:
    """The weight beta of the KL to the reference, which a target may move."""

    def __init__(self, beta: float, target: Sequence[float] | None) -> None:
        """Start with a beta; a target is [min, max] of the KL in nats a pointer."""
        self.beta, self._target = beta, target

    def move(self, kl: float) -> None:
        """Raise beta after an epoch whose KL is over its target; lower it after one under it."""
        if self._target is None:
            return
        low, high = self._target
        factor = BETA_FACTOR if kl > high else 1 / BETA_FACTOR if kl < low else 1.0
        self.beta = min(max(self.beta * factor, BETA_RANGE[0]), BETA_RANGE[1])

    def state_dict(self) -> StateDict:
        """Return beta."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take another's beta."""
        self.beta = state["beta"]
