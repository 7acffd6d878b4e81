"""GRPO: rounds of fresh candidates, credit per step, exact KL to a frozen reference.

One round: sample `group_size` pointers per query from the policy, score every prefix with the VLM,
then train on them for a few epochs:
    loss = -mean sum_t min(rho_t A_t, clip(rho_t) A_t) + beta * mean sum_t KL(pi_t || reference_t)
    A_t  = G_t - leave-one-out mean of the group's G_t,  G_t = sum_{k>=t} w_k R_k
This deviates from Shao et al. 2024 (arXiv 2402.03300): each step has its reward-to-go instead of
one advantage per sequence, nothing is divided by the group's standard deviation, the upper clip
distance may be larger than the lower one (clip-higher), and the KL is exact, because a pool is
small enough to compute whole step distributions. Only the newest round is trained on. With
`rounds: 0` the policy trains on the RL data instead of fresh candidates, and the policy before
training takes the sampler's place in the ratio. All log-probs are computed in eval mode.

The choices of the older system are available for comparison (`presets/seed-v3.yaml`): total credit,
z-scored advantages, a sequence ratio, k3 as the penalty, and a beta that is multiplied or divided
by 1.5 after an epoch whose KL to the reference is outside `kl_target`, and stays in [0.001, 10].

The history has these further keys: `surrogate`; `kl_penalty`, the KL before it is multiplied by
beta; `kl_share`, the penalty's share of the loss when both parts are taken as absolute values;
`kl_beta`; `clip_ratio`, the share of clipped steps (or of pointers, with a sequence ratio).
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
        dev: Queries on which the best epoch is chosen.
        params: Rounds, group size, clip distances, beta.
        run: Seed, observer, and the file that keeps the state.
        constant_groups: Whether groups that are constant at every step are left out ("drop"). If
            they are kept, their advantages are 0, so that only the KL moves the policy there.
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

    Attributes:
        groups: The candidates.
        advantages: Advantage of every pick, [n, G, T].
        old: Log-probs [n, G, T] under the policy that drew the candidates; None: the reference
            takes that policy's place.
        statistics: What the history says about all candidates of the round.
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
    # In a constant group the advantages are rounding errors: they must not move the policy.
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
    """Return the clipped surrogate, and the share of ratios (of steps or pointers) it clips."""
    if params.ratio == "sequence":
        log_probs, old = log_probs.sum(-1, keepdim=True), old.sum(-1, keepdim=True)
        advantages = advantages[..., :1]
    return losses.grpo(log_probs, old, advantages, part.keep, params.clip_low, params.clip_high)


def _share(penalty: float, surrogate: float) -> float:
    """Return |penalty| / (|surrogate| + |penalty|), 0 if both are 0."""
    whole = abs(surrogate) + abs(penalty)
    return abs(penalty) / whole if whole else 0.0


class Penalty:
    """The weight beta of the KL to the reference; a target range of the KL may adapt it."""

    def __init__(self, beta: float, target: Sequence[float] | None) -> None:
        """Start with a beta; `target` is the [min, max] of the KL in nats per pointer, or None."""
        self.beta, self._target = beta, target

    def move(self, kl: float) -> None:
        """Raise beta after an epoch with a KL above the target, lower it after one below."""
        if self._target is None:
            return
        low, high = self._target
        factor = BETA_FACTOR if kl > high else 1 / BETA_FACTOR if kl < low else 1.0
        self.beta = min(max(self.beta * factor, BETA_RANGE[0]), BETA_RANGE[1])

    def state_dict(self) -> StateDict:
        """Return beta."""
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over beta from another penalty."""
        self.beta = state["beta"]
