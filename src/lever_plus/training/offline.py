"""Training on lists of scored candidates: what RCE and AGRO share.

A batch consists of whole groups, every step has a return, and repeats are not kept. Groups that are
constant at every step are counted, and left out unless `constant_groups` keeps them. The objective
is a function; see `rce.py` and `agro.py`. Log-probs are computed in eval mode, unless the objective
does not compare them with those of another policy. With `fresh`, the current policy adds candidates
to the lists in rounds; from then on the history describes the lists as a whole. The history's
`uniform_loss` is the loss of a policy that picks at random, on the same batches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lever_plus.config.offline import ConstantGroups
from lever_plus.config.optim import OptimParams
from lever_plus.policy.encoding import DECODE_BATCH
from lever_plus.policy.network import Policy, uniform_log_prob
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.groups import Candidates, Groups
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.returns import (
    Credit,
    informative,
    leave_one_out,
    statistics,
    trained_rows,
)
from lever_plus.training.rl_data.candidates import fresh_groups
from lever_plus.training.trainer import Means, Run, Trainer, shuffled_batches


class Batch(NamedTuple):
    """The groups of an optimiser step, or some of them.

    Attributes:
        log_probs: Of every pick under the policy, [B, G, T], with gradient.
        returns: Of every pick, [B, G, T].
        keep: Bool [B, G].
        rows: Row numbers of these groups among the trained groups, [B].
        progress: Share of all optimiser steps that has been taken, in [0, 1].
    """

    log_probs: Tensor
    returns: Tensor
    keep: Tensor
    rows: Tensor
    progress: float


class Objective(NamedTuple):
    """The loss of a batch, and figures for the history (means over the batch's queries)."""

    loss: Callable[[Batch], Tensor]
    figures: Callable[[Batch], dict[str, float]]


class Fresh(NamedTuple):
    """How many rounds add fresh candidates, and how many candidates per query each round adds."""

    rounds: int
    size: int


NONE = Fresh(0, 0)


class Lists(NamedTuple):
    """The trained groups of a round, their returns [n, G, T], and figures about all groups."""

    groups: Groups
    returns: Tensor
    figures: dict[str, float]


def train_offline(
    policy: Policy,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: OptimParams,
    credit: Credit,
    objective: Callable[[Groups], Objective],
    run: Run,
    *,
    constant_groups: ConstantGroups,
    fresh: Fresh = NONE,
    dropout: bool = False,
) -> Trained:
    """Train a policy on lists that may grow.

    Args:
        policy: Trained in place.
        environment: Pools, features and rewards.
        groups: Scored candidates.
        dev: Queries on which the best epoch is chosen.
        params: Epochs per round, batch size, optimiser.
        credit: Computes the return of every step from the rewards at all shots and their weights.
        objective: Makes the objective for the trained groups.
        run: Seed, observer, and the file that keeps the state.
        constant_groups: Whether groups that are constant at every step are left out ("drop").
        fresh: Rounds of fresh candidates to add to the lists.
        dropout: Whether to train with the network's dropout; it must be off if the objective
            compares log-probs with those of another policy.
    """
    policy.eval()
    rounds, candidates = 1 + fresh.rounds, Candidates(groups)
    listed = partial(_lists, environment, credit, constant_groups)
    lists = listed(groups)
    steps = rounds * params.epochs * -(-len(lists.groups.queries) // params.batch_size)
    trainer = Trainer(policy, params, run, steps)
    evaluator = DevEvaluator(environment, dev, reference=environment.frozen(policy))
    best = BestCheckpoint()
    loop = Loop(run, trainer, evaluator, best, candidates=candidates)
    loop.begin()
    lists = listed(candidates.groups)
    aim = objective(lists.groups)
    for epoch in loop.epochs(rounds * params.epochs, "training"):
        if epoch > 1 and (epoch - 1) % params.epochs == 0:
            more, _ = fresh_groups(
                policy, environment, groups.queries, fresh.size, trainer.generator
            )
            candidates.groups = candidates.groups.with_candidates(more)
            lists = listed(candidates.groups)
            aim = objective(lists.groups)
        part, means = partial(_part, trainer, environment, lists, aim), Means()
        policy.train(dropout)
        for rows in shuffled_batches(len(lists.returns), params.batch_size, trainer.generator):
            means.add(trainer.update(rows, part, dropout=dropout))
        loop.evaluate(epoch, {**means.row(), **lists.figures})
    return loop.trained()


def _part(
    trainer: Trainer, environment: Environment, lists: Lists, aim: Objective, rows: Tensor
) -> Part:
    """Return loss and figures of some of the trained groups."""
    part = lists.groups.rows(rows)
    encoded = environment.encode(trainer.policy, part.queries)
    log_probs = trainer.policy.log_probs(encoded, part.pointers)
    batch = Batch(log_probs, lists.returns[rows], part.keep, rows, trainer.progress)
    uniform = uniform_log_prob(encoded.valid.sum(-1), part.pointers.shape[2])
    blind = batch._replace(log_probs=uniform.unsqueeze(1).expand_as(log_probs))
    figures = {**aim.figures(batch), "uniform_loss": aim.loss(blind).item()}
    return Part(aim.loss(batch), figures)


def _lists(
    environment: Environment, credit: Credit, constant_groups: ConstantGroups, groups: Groups
) -> Lists:
    weights = torch.tensor(environment.trained_weights)
    returns = credit(groups.rewards, weights)
    rows = trained_rows(returns, groups.keep, constant_groups)
    figures = statistics(returns, leave_one_out(returns, groups.keep), groups.keep)
    # The returns of a constant group differ by rounding errors at most: these must teach nothing.
    useful = informative(returns[rows], groups.keep[rows])[:, None, None]
    return Lists(groups.rows(rows), returns[rows] * useful, figures)


@torch.no_grad()
def pointer_log_probs(policy: Policy, environment: Environment, groups: Groups) -> Tensor:
    """Return the log-probs of all candidates' picks under a policy in eval mode, [n, G, T]."""
    policy.eval()
    found = [
        policy.log_probs(environment.encode(policy, part.queries), part.pointers)
        for part in (
            groups.rows(rows) for rows in torch.arange(len(groups.queries)).split(DECODE_BATCH)
        )
        if part.queries
    ]
    return torch.cat(found) if found else torch.empty(groups.rewards.shape)
