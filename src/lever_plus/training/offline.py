"""Training on lists of scored candidates: what RCE and AGRO share.

Full groups in a batch, a return a step, repeats not kept; groups that are constant at every step
are counted, and left out unless they are asked for. The objective is a function; see `rce.py` and
`agro.py`. Log-probs come from eval mode, unless the objective compares them with nobody else's.
With `fresh`, rounds of candidates from the policy as it then is join the lists; their numbers in
the history are those of the whole lists. `uniform_loss` is what a policy that picks at random would
have, on the same batches.
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
    """Groups of a step, or a part of them.

    log_probs: [B, G, T] under the policy, with gradient; returns: of every step [B, G, T]; keep:
    bool [B, G]; rows: which of the trained groups these are; progress: share of all steps taken,
    in [0, 1].
    """

    log_probs: Tensor
    returns: Tensor
    keep: Tensor
    rows: Tensor
    progress: float


class Objective(NamedTuple):
    """A loss of a batch, with what the history says about it (means over its queries)."""

    loss: Callable[[Batch], Tensor]
    figures: Callable[[Batch], dict[str, float]]


class Fresh(NamedTuple):
    """Rounds of fresh candidates after the first pass over the lists, and their number a query."""

    rounds: int
    size: int


NONE = Fresh(0, 0)


class Lists(NamedTuple):
    """The trained groups of a round with their returns [n, G, T], and figures about all."""

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
        dev: Queries that the epoch is chosen on.
        params: Epochs (of every round), batch, optimiser.
        credit: Returns of every step from the rewards at shots and their weights.
        objective: Makes the objective for the trained groups.
        run: Seed, observer, kept state.
        constant_groups: Whether groups that are constant at every step are left out.
        fresh: Rounds of candidates that are added.
        dropout: Train with the network's dropout: where log-probs are compared, it must not be on.
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
    # What a constant group scores teaches nothing, and what rounding leaves of it must not push.
    useful = informative(returns[rows], groups.keep[rows])[:, None, None]
    return Lists(groups.rows(rows), returns[rows] * useful, figures)


@torch.no_grad()
def pointer_log_probs(policy: Policy, environment: Environment, groups: Groups) -> Tensor:
    """Return the log-probs of all listed picks under a policy in eval mode, [n, G, T]."""
    policy.eval()
    found = [
        policy.log_probs(environment.encode(policy, part.queries), part.pointers)
        for part in (
            groups.rows(rows) for rows in torch.arange(len(groups.queries)).split(DECODE_BATCH)
        )
        if part.queries
    ]
    return torch.cat(found) if found else torch.empty(groups.rewards.shape)
