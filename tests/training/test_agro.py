"""AGRO compared with enumeration: its minimum, its on-policy gradient, and what it ignores."""

import pytest
import torch
from enumeration import gradient, numbers, whole
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.network import Encoded, Policy
from lever_plus.training import losses
from lever_plus.training.agro import effective_sample_size
from lever_plus.training.returns import reward_to_go

ALL = torch.ones(2, 4, dtype=torch.bool)
BETA = 0.3


def agro_of(log_pi: Tensor, log_ref: Tensor, returns: Tensor, members: Tensor) -> Tensor:
    """Return the loss over all groups [n, size] of pointers."""
    keep = torch.ones(members.shape, dtype=torch.bool)
    ratio = (log_pi - log_ref)[members].unsqueeze(-1)
    return losses.agro(ratio, returns[members].unsqueeze(-1), keep, BETA)


@pytest.mark.invariant
def test_agro_is_half_the_mean_squared_difference_over_pairs_summed_over_the_steps() -> None:
    ratio, returns = numbers(2, 4, 3), numbers(2, 4, 3, seed=2)
    residual = returns - BETA * ratio
    pairs = [(residual[:, i] - residual[:, j]).square() / 2 for i in range(4) for j in range(i)]
    expected = torch.stack(pairs).mean((0, 1)) / (2 * BETA)
    assert_close(losses.agro(ratio, returns, ALL, BETA), expected.sum())
    for step in range(3):
        one = losses.agro(ratio[..., [step]], returns[..., [step]], ALL, BETA)
        assert_close(one, expected[step])


@pytest.mark.invariant
def test_agro_has_its_minimum_at_the_tilted_reference_whatever_filled_the_list(
    reference: Policy, reference_encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    """If pi is reference * exp(R / beta) / Z, no list has any variance, and so no gradient."""
    returns = rewards[0].mean(-1)
    log_ref = whole(reference, reference_encoded, every).detach()
    tilted = (log_ref + returns / BETA).log_softmax(-1).requires_grad_()
    fillers = (torch.ones(60).double(), log_ref.exp(), (-log_ref).softmax(-1))
    for seed, filler in enumerate(fillers):
        torch.manual_seed(seed)
        members = torch.multinomial(filler.expand(50, -1), 6)
        loss = agro_of(tilted, log_ref, returns, members)
        assert loss.item() < 1e-20
        assert torch.autograd.grad(loss, tilted)[0].abs().max() < 1e-10
        moved = (tilted + 0.1 * numbers(60, seed=seed)).log_softmax(-1)
        assert agro_of(moved, log_ref, returns, members) > 1e-4


@pytest.mark.invariant
def test_on_policy_agro_has_the_gradient_of_the_regularised_objective(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
    reference_encoded: Encoded,
    every: Tensor,
    rewards: Tensor,
) -> None:
    """Over all pairs drawn from pi, the gradient is that of -(E R - beta KL(pi || reference))."""
    returns = rewards[0].mean(-1)
    log_pi = whole(policy, encoded, every)
    log_ref = whole(reference, reference_encoded, every).detach()
    members = torch.cartesian_prod(torch.arange(60), torch.arange(60))
    chance = log_pi.detach()[members].sum(-1).exp()
    assert_close(chance.sum(), torch.ones((), dtype=torch.float64))
    keep = torch.ones(1, 2, dtype=torch.bool)
    each = torch.stack(
        [
            losses.agro(
                (log_pi - log_ref)[pair].view(1, 2, 1), returns[pair].view(1, 2, 1), keep, BETA
            )
            for pair in members
        ]
    )
    objective = (log_pi.exp() * (returns - BETA * (log_pi - log_ref))).sum()
    exact = gradient(objective, policy)
    assert exact.norm() > 1e-2
    assert_close(gradient((chance * each).sum(), policy), -exact, rtol=0, atol=1e-10)


@pytest.mark.invariant
def test_at_the_reference_agro_has_the_gradient_of_leave_one_out_reinforce(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    """For whole pointers, and with credit per step."""
    log_probs = policy.log_probs(encoded, every[:, :7])
    returns, keep = rewards[:, :7], torch.ones(1, 7, dtype=torch.bool)
    for picked, earned in (
        (log_probs.sum(-1, keepdim=True), returns.mean(-1, keepdim=True)),
        (log_probs, reward_to_go(returns, torch.tensor([0.2, 0.3, 0.5]).double())),
    ):
        loss = losses.agro(picked - picked.detach(), earned, keep, BETA)
        others = (earned.sum(1, keepdim=True) - earned) / 6
        reinforce = -((earned - others) * picked).sum(-1).mean()
        assert_close(gradient(loss, policy), gradient(reinforce, policy), rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_agro_forgets_a_constant_and_scales_with_reward_and_beta() -> None:
    ratio, returns = numbers(2, 4, 3), numbers(2, 4, 3, seed=2)
    loss = losses.agro(ratio, returns, ALL, BETA)
    assert_close(losses.agro(ratio, returns + 7.0, ALL, BETA), loss)
    scaled = losses.agro(ratio, 5 * returns, ALL, 5 * BETA)
    assert_close(scaled, 5 * loss)


@pytest.mark.invariant
def test_marked_duplicates_and_groups_of_one_change_no_agro_loss() -> None:
    ratio, returns = numbers(2, 4, 3), numbers(2, 4, 3, seed=2)
    keep = torch.cat([ALL, ~ALL[:, :2]], dim=1)
    one, two = (torch.cat([x, x[:, :2]], dim=1) for x in (ratio, returns))
    loss = losses.agro(ratio, returns, ALL, BETA)
    assert_close(losses.agro(one, two, keep, BETA), loss)
    alone = torch.tensor([[True, False, False, False]] * 2)
    assert losses.agro(ratio, returns, alone, BETA) == 0


@pytest.mark.invariant
def test_a_constant_added_to_the_rewards_changes_no_agro_gradient(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    ratio = policy.log_probs(encoded, every[:, :9]) - 3 * numbers(1, 9, 3)
    returns, keep = rewards[:, :9], torch.ones(1, 9, dtype=torch.bool)
    one, other = (
        gradient(losses.agro(ratio, returns + shift, keep, BETA), policy) for shift in (0.0, 5.0)
    )
    assert one.norm() > 1e-2
    assert_close(other, one, rtol=0, atol=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_rewards_and_beta_scaled_alike_leave_the_optimum_of_agro_where_it_is(
    reference: Policy, reference_encoded: Encoded, every: Tensor, rewards: Tensor, scale: float
) -> None:
    returns, keep = rewards.mean(-1), torch.ones(1, 60, dtype=torch.bool)
    log_ref = whole(reference, reference_encoded, every).detach()
    optimum = (log_ref + returns[0] / BETA).log_softmax(-1).requires_grad_()
    ratio = (optimum - log_ref).view(1, 60, 1)
    loss = losses.agro(ratio, scale * returns.unsqueeze(-1), keep, scale * BETA)
    assert loss.item() < 1e-20
    assert torch.autograd.grad(loss, optimum)[0].abs().max() < 1e-10


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
