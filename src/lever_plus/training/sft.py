"""SFT: imitate the InfoScore sequences by teacher forcing.

loss = -mean over queries of sum_b softmax(InfoScore / temperature)_b log pi(sequence_b), over all
beams: the best beam alone throws away what the search learned about the others. Dropout is on here
and nowhere else, because no log-prob is compared. `uniform_loss` in the history is the loss of a
policy that picks at random: what a trained one must be under.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lever_plus.config.sft import SftParams
from lever_plus.policy.network import Policy, uniform_log_prob
from lever_plus.selectors.infoscore import ScoredSequence
from lever_plus.training import losses
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.trainer import Means, Run, Trainer, shuffled_batches


def train_sft(
    policy: Policy,
    environment: Environment,
    sequences: Mapping[int, Sequence[ScoredSequence]],
    dev: Sequence[int],
    params: SftParams,
    run: Run,
) -> Trained:
    """Train a policy on {query id: its beams}."""
    queries = list(sequences)
    pointers = torch.tensor(
        [[environment.pools.positions(q, s.pointer) for s in sequences[q]] for q in queries]
    )
    scores = torch.tensor([[s.info_score for s in sequences[q]] for q in queries])
    weights = (scores / params.temperature).softmax(-1)
    sizes = torch.tensor([len(environment.pools.of(query)) for query in queries])
    uniform = -uniform_log_prob(sizes, pointers.shape[2]).sum(-1).mean().item()
    steps = params.epochs * -(-len(queries) // params.batch_size)
    # One thread: the random numbers of dropout are drawn in its order.
    trainer = Trainer(policy, params, replace(run, threads=1), steps)
    evaluator = DevEvaluator(environment, dev, reference=None)
    loop = Loop(run, trainer, evaluator, BestCheckpoint(params.patience))

    def part(rows: Tensor) -> Part:
        encoded = environment.encode(policy, [queries[i] for i in rows.tolist()])
        return Part(losses.sft(policy.log_probs(encoded, pointers[rows]), weights[rows]), {})

    loop.begin()
    for epoch in loop.epochs(params.epochs, "SFT"):
        means = Means()
        policy.train()
        for rows in shuffled_batches(len(queries), params.batch_size, trainer.generator):
            means.add(trainer.update(rows, part))
        row = {**means.row(), "uniform_loss": uniform}
        if epoch % params.dev_every == 0 or epoch == params.epochs:
            loop.evaluate(epoch, row)
        else:
            loop.finish(epoch, row)
    return loop.trained()
