"""What SFT imitates: all scores of the searches, or only the sequences that they kept."""

import math
from dataclasses import replace

import pytest
import torch
from enumeration import gradient
from torch import Tensor

from identity_task import SHOTS, IdentityTask
from lever_plus.data.pools import Pools
from lever_plus.policy.network import Encoded, Policy
from lever_plus.selectors.infoscore import ScoredPrefix, best_sequences
from lever_plus.training import losses
from lever_plus.training.sft import train_sft, train_sft_beams
from lever_plus.training.trainer import Run
from training import SFT, Watch, sft, sft_beams

STILL = SFT.model_copy(update={"epochs": 1, "learning_rate": 1e-9, "batch_size": 1000})
"""One step that changes nothing, so the history has the loss at the start."""
TEMPERATURE = STILL.temperature


@pytest.fixture
def uneven(task: IdentityTask) -> IdentityTask:
    """Pools of 4, 5 and 6."""
    pools = task.environment.pools
    cut = {query: pool[: 4 + query % 3] for query, pool in pools.ids.items()}
    return replace(task, environment=replace(task.environment, pools=Pools(cut, "c" * 64)))


def one(task: IdentityTask, policy: Policy, query: int, prefix: tuple[int, ...]) -> Tensor:
    """Return the distribution of a query's next pick after a prefix, over its pool."""
    positions = task.environment.pools.positions(query, prefix)
    encoded = task.environment.encode(policy.eval(), [query])
    found = policy.next_log_probs(encoded, torch.tensor([[positions]], dtype=torch.long))
    return found[0, 0].detach()


def cross_entropy(task: IdentityTask, policy: Policy, query: int, scored: ScoredPrefix) -> float:
    places = task.environment.pools.positions(query, scored.candidates)
    weights = (torch.tensor(scored.info_scores) / TEMPERATURE).softmax(-1)
    return -float(weights @ one(task, policy, query, scored.prefix)[places])


@pytest.mark.invariant
def test_the_listwise_loss_is_the_cross_entropy_with_all_scores_of_every_prefix(
    uneven: IdentityTask,
) -> None:
    """Summed over the lengths, averaged over the prefixes of a length and over queries."""
    policy, searches, expected = uneven.policy(), uneven.searches(), []
    for query, scored in searches.items():
        lengths = [[s for s in scored if len(s.prefix) == length] for length in range(SHOTS)]
        assert [len(each) for each in lengths] == [1, 2, 2]
        terms = [[cross_entropy(uneven, policy, query, s) for s in each] for each in lengths]
        expected.append(sum(sum(each) / len(each) for each in terms))
    row = sft(uneven, uneven.policy(), STILL).history[1]
    assert row["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_loss_of_a_random_pick_knows_the_sizes_of_the_pools(uneven: IdentityTask) -> None:
    sizes = [4 + query % 3 for query in uneven.train]
    blind = sum(sum(math.log(size - t) for t in range(SHOTS)) for size in sizes) / len(sizes)
    for train in (sft, sft_beams):
        row = train(uneven, uneven.policy(), STILL).history[1]
        assert row["uniform_loss"] == pytest.approx(blind, rel=1e-5)


@pytest.mark.invariant
def test_the_listwise_loss_is_least_where_every_step_is_the_softmax_of_its_scores(
    every: Tensor,
) -> None:
    """By enumeration over free logits: all prefixes of two picks from five, all scores random."""
    generator = torch.Generator().manual_seed(2)
    prefixes = every[0, ::3, :2]
    scores = torch.rand(1, len(prefixes), 5, generator=generator, dtype=torch.float64)
    scores = scores.scatter(-1, prefixes[None], -torch.inf)
    weights = (scores / 0.1).softmax(-1)
    shift = torch.randn(1, len(prefixes), 1, generator=generator, dtype=torch.float64)
    rest = (scores / 0.1 + shift).requires_grad_()

    def loss(logits: Tensor) -> Tensor:
        return losses.listwise(logits.log_softmax(-1), weights)

    assert torch.autograd.grad(loss(rest), rest)[0].abs().max() < 1e-12
    for _ in range(5):
        moved = rest + 0.1 * torch.randn(scores.shape, generator=generator, dtype=torch.float64)
        assert loss(moved) > loss(rest) + 1e-5


@pytest.mark.invariant
def test_the_loss_of_beams_weighs_the_best_sequences_of_the_search(uneven: IdentityTask) -> None:
    policy, beam, expected = uneven.policy(), 3, []
    searches = uneven.searches(beam)
    for query, scored in searches.items():
        best = best_sequences(scored, beam)
        weights = (torch.tensor([s.info_score for s in best]) / TEMPERATURE).softmax(-1)
        for weight, sequence in zip(weights.tolist(), best, strict=True):
            pointer = uneven.environment.pools.positions(query, sequence.pointer)
            steps = [
                one(uneven, policy, query, sequence.pointer[:t])[place]
                for t, place in enumerate(pointer)
            ]
            expected.append(-weight * float(sum(steps)))
    watch, environment = Watch(), uneven.environment
    run = Run(0, watch)
    train_sft_beams(uneven.policy(), environment, searches, beam, uneven.dev, STILL, run)
    loss = float(watch.history[1]["loss"])
    assert loss == pytest.approx(sum(expected) / len(searches), rel=1e-5)


def test_searches_for_fewer_picks_teach_those(task: IdentityTask) -> None:
    """Pointers may be longer than what was searched for; the prefixes that there are teach."""
    searches = {q: [s for s in found if not s.prefix] for q, found in task.searches().items()}
    params = SFT.model_copy(update={"epochs": 12})
    policy, watch = task.policy(), Watch()
    train_sft(policy, task.environment, searches, task.dev, params, Run(0, watch))
    assert float(watch.history[-1]["loss"]) < 0.5 * float(watch.history[1]["loss"])
    first = [one(task, policy, query, ()).argmax().item() for query in task.dev]
    wanted = [task.environment.pools.positions(q, task.solution(q))[0] for q in task.dev]
    assert sum(a == b for a, b in zip(first, wanted, strict=True)) >= len(task.dev) - 1


def test_what_cannot_be_picked_has_weight_zero_and_a_finite_gradient(
    policy: Policy, encoded: Encoded
) -> None:
    log_probs = policy.next_log_probs(encoded, torch.tensor([[[1, 3]]]))
    weights = torch.tensor([[[0.5, 0.0, 0.25, 0.0, 0.25]]], dtype=torch.float64)
    found = gradient(losses.listwise(log_probs, weights), policy)
    assert found.isfinite().all()
    assert found.abs().max() > 1e-3
