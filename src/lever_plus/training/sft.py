"""SFT: imitate the InfoScore sequences by teacher forcing.

loss = -mean over queries of sum_b softmax(InfoScore / temperature)_b log pi(sequence_b), over all
beams: the best beam alone throws away what the search learned about the others. Dropout is on here
and nowhere else, because no log-prob is compared. `uniform_loss` in the history is the loss of a
policy that picks at random: what a trained one must be under.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lever_plus.config.training import SftParams
from lever_plus.policy.network import Policy, uniform_log_prob
from lever_plus.selectors.infoscore import ScoredSequence
from lever_plus.training import losses
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.trainer import Fitting, Means, Run, shuffled_batches


def train_sft(
    policy: Policy,
    environment: Environment,
    sequences: Mapping[int, Sequence[ScoredSequence]],
    dev: Sequence[int],
    params: SftParams,
    run: Run,
) -> Fitting:
    """Train a policy on {query id: its beams} and return the fitting with its best epoch."""
    queries = list(sequences)
    pointers = torch.tensor(
        [[environment.pools.positions(q, s.pointer) for s in sequences[q]] for q in queries]
    )
    scores = torch.tensor([[s.info_score for s in sequences[q]] for q in queries])
    weights = (scores / params.temperature).softmax(-1)
    sizes = torch.tensor([len(environment.pools.of(query)) for query in queries])
    uniform = -uniform_log_prob(sizes, pointers.shape[2]).sum(-1).mean().item()
    steps = params.epochs * -(-len(queries) // params.batch_size)
    fitting = Fitting(policy, environment, params, dev, run, steps, untrained=True)

    def part(rows: Tensor) -> Part:
        encoded = environment.encode(policy, [queries[i] for i in rows.tolist()])
        return Part(losses.sft(policy.log_probs(encoded, pointers[rows]), weights[rows]), {})

    for epoch in fitting.epochs(params.epochs, "SFT"):
        means = Means()
        for rows in shuffled_batches(len(queries), params.batch_size, fitting.generator):
            policy.train()
            means.add(fitting.update(rows, part))
        row = {**means.row(), "uniform_loss": uniform}
        if epoch % params.dev_every == 0 or epoch == params.epochs:
            fitting.evaluate(epoch, row)
        else:
            fitting.finish(epoch, row)
    return fitting
