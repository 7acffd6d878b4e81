"""SFT: imitate the InfoScore sequences by teacher forcing.

loss = -mean over queries of sum_b softmax(InfoScore / temperature)_b log pi(sequence_b), over all
beams: the best beam alone throws away what the search learned about the others. Dropout is on here
and nowhere else, because no log-prob is compared.
"""

from collections.abc import Mapping, Sequence

import torch

from lever_plus.params import SftParams
from lever_plus.policy.network import Selector
from lever_plus.rl import losses
from lever_plus.rl.environment import Environment
from lever_plus.rl.fitting import Fitting, Means, Observe, epochs, shuffled_batches
from lever_plus.rl.infoscore import ScoredSequence


def train_sft(
    policy: Selector,
    environment: Environment,
    sequences: Mapping[int, Sequence[ScoredSequence]],
    dev: Sequence[int],
    params: SftParams,
    seed: int,
    observe: Observe,
) -> Fitting:
    """Train a policy on {query id: its beams} and return the fitting with its best epoch."""
    queries = list(sequences)
    pointers = torch.tensor(
        [[environment.pools.positions(q, s.pointer) for s in sequences[q]] for q in queries]
    )
    scores = torch.tensor([[s.info_score for s in sequences[q]] for q in queries])
    weights = (scores / params.temperature).softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    fitting = Fitting(policy, environment, params, dev, observe)
    for epoch in epochs(params.epochs, "SFT"):
        means = Means()
        for rows in shuffled_batches(len(queries), params.batch_size, generator):
            policy.train()
            encoded = environment.encode(policy, [queries[i] for i in rows.tolist()])
            loss = losses.sft(policy.log_probs(encoded, pointers[rows]), weights[rows])
            means.add({"grad_norm": fitting.update(loss), "loss": loss.item()})
        if epoch % params.dev_every == 0 or epoch == params.epochs:
            fitting.evaluate(epoch, means.row())
        else:
            fitting.write({"epoch": epoch, **means.row()})
    return fitting
