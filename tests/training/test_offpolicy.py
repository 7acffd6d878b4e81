"""Estimates from lists that others proposed are unbiased: by enumeration over all samples."""

from dataclasses import dataclass

import pytest
import torch
from enumeration import numbers, whole
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.decoding import beam
from lever_plus.policy.network import Encoded, Policy
from lever_plus.training.offpolicy import (
    doubly_robust,
    effective_sample_size,
    importance_value,
    mixture_log_prob,
)

BASE = torch.tensor([25, 5, 1])


@dataclass(frozen=True)
class World:
    """Log-probs of all pointers under the policy and two samplers, and their rewards, [60]."""

    log_pi: Tensor
    samplers: Tensor
    rewards: Tensor

    @property
    def value(self) -> Tensor:
        """Return E_pi[R], exact."""
        return (self.log_pi.exp() * self.rewards).sum()


@pytest.fixture
def world(policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor) -> World:
    log_pi = whole(policy, encoded, every).detach()
    samplers = torch.stack([log_pi / 2, 2 * numbers(60)], dim=-1).log_softmax(0)
    return World(log_pi, samplers, rewards[0].mean(-1))


@pytest.fixture
def draws(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """All ways to draw one pointer from the first sampler and two from the second.

    Pointers [60^3, 3], their probability [60^3], and the numbers of draws of each sampler.
    """
    members = torch.cartesian_prod(*[torch.arange(60)] * 3)
    first, second = world.samplers.unbind(-1)
    chance = (first[members[:, 0]] + second[members[:, 1]] + second[members[:, 2]]).exp()
    assert_close(chance.sum().item(), 1.0)
    return members, chance, torch.tensor([1.0, 2.0]).double()


def test_a_mixture_weighs_its_samplers_by_their_numbers_of_draws() -> None:
    log_probs = torch.tensor([[0.5, 0.1], [0.2, 0.8]]).log()
    found = mixture_log_prob(log_probs, torch.tensor([3, 1])).exp()
    assert_close(found, torch.tensor([0.75 * 0.5 + 0.25 * 0.1, 0.75 * 0.2 + 0.25 * 0.8]))


@pytest.mark.invariant
def test_a_mixture_of_samplers_is_a_distribution(world: World) -> None:
    total = mixture_log_prob(world.samplers, torch.tensor([3, 5])).exp().sum()
    assert_close(total.item(), 1.0)


@pytest.mark.invariant
def test_importance_weights_under_the_mixture_are_unbiased(
    world: World, draws: tuple[Tensor, Tensor, Tensor]
) -> None:
    members, chance, counts = draws
    log_mu = mixture_log_prob(world.samplers[members], counts)
    nothing = torch.zeros(members.shape, dtype=torch.bool)
    values = importance_value(world.log_pi[members], log_mu, world.rewards[members], nothing)
    assert_close((chance * values).sum(), world.value, rtol=0, atol=1e-10)
    wrong = mixture_log_prob(world.samplers[members], counts.flip(0))
    biased = importance_value(world.log_pi[members], wrong, world.rewards[members], nothing)
    assert ((chance * biased).sum() - world.value).abs() > 1e-3


@pytest.mark.invariant
def test_what_beam_search_lists_is_an_exact_stratum_beside_the_samples(
    world: World,
    draws: tuple[Tensor, Tensor, Tensor],
    policy: Policy,
    encoded: Encoded,
    every: Tensor,
) -> None:
    members, chance, counts = draws
    found = (beam(policy, encoded, 3, 8).pointers[0] * BASE).sum(-1)
    listed = torch.isin((every[0] * BASE).sum(-1), found)
    assert listed.sum() == 8
    exact = (world.log_pi.exp() * world.rewards)[listed].sum()
    log_mu = mixture_log_prob(world.samplers[members], counts)
    values = importance_value(
        world.log_pi[members], log_mu, world.rewards[members], listed[members]
    )
    assert_close(exact + (chance * values).sum(), world.value, rtol=0, atol=1e-10)
    assert 0.1 * world.value < exact < 0.9 * world.value


@pytest.mark.invariant
@pytest.mark.parametrize("quality", ["none", "random", "perfect"])
def test_doubly_robust_is_unbiased_whatever_the_prediction(
    world: World, draws: tuple[Tensor, Tensor, Tensor], quality: str
) -> None:
    """A perfect prediction leaves no variance either."""
    members, chance, counts = draws
    predicted = {
        "none": torch.zeros(60).double(),
        "random": 5 * numbers(60, seed=3),
        "perfect": world.rewards,
    }[quality]
    log_mu = mixture_log_prob(world.samplers[members], counts)
    expected = (world.log_pi.exp() * predicted).sum()
    values = doubly_robust(
        world.log_pi[members], log_mu, world.rewards[members], predicted[members], expected
    )
    assert_close((chance * values).sum(), world.value, rtol=0, atol=1e-10)
    if quality == "perfect":
        assert_close(values, world.value.expand_as(values))
    else:
        assert values.std() > 0.01


@pytest.mark.invariant
def test_effective_sample_size_counts_equal_weights_and_forgets_their_unit() -> None:
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(7.0)
    one = torch.tensor([0.0, -torch.inf, -torch.inf])
    assert effective_sample_size(one).item() == pytest.approx(1.0)
    weights = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    sizes = effective_sample_size(weights.log())
    assert_close(sizes, torch.tensor([16 / 10, 2.0]))
    assert_close(effective_sample_size(weights.log() + 500.0), sizes)
    assert_close(effective_sample_size(weights.log() - 500.0), sizes)
