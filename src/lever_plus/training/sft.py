"""SFT: imitate the InfoScore search.

Listwise (`sft`), with p for the prefixes that the search extended and i for an example of the pool:
    loss = -sum over steps t of the mean over prefixes p of length t - 1 of
           sum_i softmax(InfoScore(p + i) / temperature)_i log pi_t(i | p)
The search has scored every candidate after every such prefix, so all these scores teach, without
any further request to the VLM. The alternative, for comparison, imitates only the sequences that
the search kept (`sft-beams`), and so uses about one in a hundred of these scores:
    loss = -sum_b softmax(InfoScore / temperature)_b log pi(sequence_b)
Both are means over queries. `uniform_loss` in the history is the loss of a policy that picks at
random; a trained policy must be below it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lever_plus.config.sft import SftParams
from lever_plus.data.pools import Pools
from lever_plus.policy.network import Encoded, Policy, uniform_log_prob
from lever_plus.selectors.infoscore import ScoredPrefix, ScoredSequence, best_sequences
from lever_plus.training import losses
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.environment import Environment
from lever_plus.training.gradients import Part
from lever_plus.training.loop import Loop, Trained
from lever_plus.training.trainer import Means, Run, Trainer, shuffled_batches

Searches = Mapping[int, Sequence[ScoredPrefix]]
"""{query id: what the InfoScore search scored, shortest prefixes first}."""
Loss = Callable[[Policy, Encoded, Tensor], Tensor]
"""Loss of a policy on encoded queries, given their row numbers."""


class Targets(NamedTuple):
    """The loss against what is imitated, and its value for a policy that picks at random."""

    loss: Loss
    uniform: float


def train_sft(
    policy: Policy,
    environment: Environment,
    searches: Searches,
    dev: Sequence[int],
    params: SftParams,
    run: Run,
) -> Trained:
    """Train a policy on all scores of the InfoScore search.

    Args:
        policy: Trained in place.
        environment: Pools, features and rewards.
        searches: What the InfoScore search scored for each training query.
        dev: Queries on which the best epoch is chosen.
        params: Temperature (in units of the InfoScore), epochs, patience and optimiser.
        run: Seed, observer, and the file that keeps the state.
    """
    targets = _listwise(searches, environment.pools, params.temperature)
    return _imitate(policy, environment, list(searches), targets, dev, params, run)


def train_sft_beams(
    policy: Policy,
    environment: Environment,
    searches: Searches,
    beam: int,
    dev: Sequence[int],
    params: SftParams,
    run: Run,
) -> Trained:
    """Train a policy on the `beam` best sequences of the InfoScore search; see `train_sft`."""
    found = {query: best_sequences(scored, beam) for query, scored in searches.items()}
    targets = _sequences(found, environment.pools, params.temperature)
    return _imitate(policy, environment, list(searches), targets, dev, params, run)


def _imitate(
    policy: Policy,
    environment: Environment,
    queries: Sequence[int],
    targets: Targets,
    dev: Sequence[int],
    params: SftParams,
    run: Run,
) -> Trained:
    steps = params.epochs * -(-len(queries) // params.batch_size)
    trainer = Trainer(policy, params, run, steps)
    evaluator = DevEvaluator(environment, dev, reference=None)
    loop = Loop(run, trainer, evaluator, BestCheckpoint(params.patience))

    def part(rows: Tensor) -> Part:
        encoded = environment.encode(policy, [queries[i] for i in rows.tolist()])
        return Part(targets.loss(policy, encoded, rows), {})

    loop.begin()
    for epoch in loop.epochs(params.epochs, "SFT"):
        means = Means()
        policy.train()
        for rows in shuffled_batches(len(queries), params.batch_size, trainer.generator):
            means.add(trainer.update(rows, part, dropout=True))
        row = {**means.row(), "uniform_loss": targets.uniform}
        if epoch % params.dev_every == 0 or epoch == params.epochs:
            loop.evaluate(epoch, row)
        else:
            loop.finish(epoch, row)
    return loop.trained()


class _Step(NamedTuple):
    """Prefixes of one length [n, G, T], with the weights of the next pick [n, G, K]."""

    prefixes: Tensor
    weights: Tensor


def _listwise(searches: Searches, pools: Pools, temperature: float) -> Targets:
    lengths = sorted({len(each.prefix) for scored in searches.values() for each in scored})
    steps = [_step(searches, pools, length, temperature) for length in lengths]
    # After any prefix of a given length, the same number of candidates is left.
    uniform = sum(
        torch.tensor([len(pools.of(query)) - length for query in searches]).float().log().mean()
        for length in lengths
    )

    def loss(policy: Policy, encoded: Encoded, rows: Tensor) -> Tensor:
        found = torch.zeros(())
        for step in steps:
            log_probs = policy.next_log_probs(encoded, step.prefixes[rows])
            weights = step.weights[rows][..., : log_probs.shape[-1]]
            found = found + losses.listwise(log_probs, weights)
        return found

    return Targets(loss, float(uniform))


def _step(searches: Searches, pools: Pools, length: int, temperature: float) -> _Step:
    """Return the prefixes of one length; smaller pools are padded with candidates of weight 0."""
    largest = max(len(pools.of(query)) for query in searches)
    prefixes, weights = [], []
    for query, scored in searches.items():
        of_length = [each for each in scored if len(each.prefix) == length]
        prefixes.append([pools.positions(query, each.prefix) for each in of_length])
        scores = torch.full((len(of_length), largest), -torch.inf)
        for row, each in zip(scores, of_length, strict=True):
            row[pools.positions(query, each.candidates)] = torch.tensor(each.info_scores)
        weights.append((scores / temperature).softmax(-1))
    shape = (len(prefixes), -1, length) if length else (len(prefixes), 1, 0)
    return _Step(torch.tensor(prefixes, dtype=torch.long).view(shape), torch.stack(weights))


def _sequences(
    sequences: Mapping[int, Sequence[ScoredSequence]], pools: Pools, temperature: float
) -> Targets:
    pointers = torch.tensor(
        [[pools.positions(query, s.pointer) for s in found] for query, found in sequences.items()]
    )
    scores = torch.tensor([[s.info_score for s in found] for found in sequences.values()])
    weights = (scores / temperature).softmax(-1)
    sizes = torch.tensor([len(pools.of(query)) for query in sequences])
    uniform = -uniform_log_prob(sizes, pointers.shape[2]).sum(-1).mean().item()

    def loss(policy: Policy, encoded: Encoded, rows: Tensor) -> Tensor:
        return losses.sft(policy.log_probs(encoded, pointers[rows]), weights[rows])

    return Targets(loss, uniform)
