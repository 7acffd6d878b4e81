"""Training on lists of scored candidates: what RCE and AGRO share.

Full groups in a batch, one total return a candidate, constant groups left out and counted, repeats
not kept. Dropout is 0: log-probs come from eval mode. The objective is a function; see `rce.py` and
`agro.py`. With `fresh`, rounds of candidates from the policy as it then is join the lists; their
numbers in the history are those of the whole lists. `uniform_loss` is what a policy that picks at
random would have, on the same batches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lever_plus.config.optim import OptimParams
from lever_plus.policy.encoding import DECODE_BATCH
from lever_plus.policy.network import Policy, uniform_log_prob
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.groups import Candidates, Groups
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.returns import informative, leave_one_out, statistics, total
from lever_plus.training.rl_data.candidates import fresh_groups
from lever_plus.training.trainer import Means, Run, Trainer, shuffled_batches


class Batch(NamedTuple):
    """Groups of a step, or a part of them.

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


class Fresh(NamedTuple):
    """Rounds of fresh candidates after the first pass over the lists, and their number a query."""

    rounds: int
    size: int


NONE = Fresh(0, 0)


class Lists(NamedTuple):
    """The informative groups of a round with their total returns [n, G], and figures about all."""

    groups: Groups
    returns: Tensor
    figures: dict[str, float]


def train_offline(
    policy: Policy,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: OptimParams,
    objective: Callable[[Groups], Objective],
    run: Run,
    fresh: Fresh = NONE,
) -> Trained:
    """Train a policy on lists that may grow.

    Args:
        policy: Trained in place.
        environment: Pools, features and rewards.
        groups: Scored candidates.
        dev: Queries that the epoch is chosen on.
        params: Epochs (of every round), batch, optimiser.
        objective: Makes the objective for the informative groups.
        run: Seed, observer, kept state.
        fresh: Rounds of candidates that are added.
    """
    policy.eval()
    rounds, candidates = 1 + fresh.rounds, Candidates(groups)
    lists = _lists(groups, environment)
    steps = rounds * params.epochs * -(-len(lists.groups.queries) // params.batch_size)
    trainer = Trainer(policy, params, run, steps)
    evaluator = DevEvaluator(environment, dev, reference=environment.frozen(policy))
    best = BestCheckpoint(params.patience)
    loop = Loop(run, trainer, evaluator, best, candidates=candidates)
    loop.begin()
    lists = _lists(candidates.groups, environment)
    aim = objective(lists.groups)
    for epoch in loop.epochs(rounds * params.epochs, "training"):
        if epoch > 1 and (epoch - 1) % params.epochs == 0:
            more, _ = fresh_groups(
                policy, environment, groups.queries, fresh.size, trainer.generator
            )
            candidates.groups = candidates.groups.with_candidates(more)
            lists = _lists(candidates.groups, environment)
            aim = objective(lists.groups)
        part, means = partial(_part, trainer, environment, lists, aim), Means()
        policy.eval()
        for rows in shuffled_batches(len(lists.returns), params.batch_size, trainer.generator):
            means.add(trainer.update(rows, part))
        loop.evaluate(epoch, {**means.row(), **lists.figures})
    return loop.trained()


def _part(
    trainer: Trainer, environment: Environment, lists: Lists, aim: Objective, rows: Tensor
) -> Part:
    """Return loss and figures of some of the informative groups."""
    part = lists.groups.rows(rows)
    encoded = environment.encode(trainer.policy, part.queries)
    log_probs = trainer.policy.log_probs(encoded, part.pointers)
    batch = Batch(log_probs, lists.returns[rows], part.keep, rows, trainer.progress)
    uniform = uniform_log_prob(encoded.valid.sum(-1), part.pointers.shape[2])
    blind = batch._replace(log_probs=uniform.unsqueeze(1).expand_as(log_probs))
    figures = {**aim.figures(batch), "uniform_loss": aim.loss(blind).item()}
    return Part(aim.loss(batch), figures)


def _lists(groups: Groups, environment: Environment) -> Lists:
    weights = torch.tensor(environment.shot_weights)
    returns = total(groups.rewards, weights)[..., :1]
    useful = informative(returns, groups.keep)
    figures = statistics(returns, leave_one_out(returns, groups.keep), groups.keep)
    return Lists(groups.rows(useful.nonzero().flatten()), returns[useful][..., 0], figures)


@torch.no_grad()
def pointer_log_probs(policy: Policy, environment: Environment, groups: Groups) -> Tensor:
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
