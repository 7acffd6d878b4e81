"""The objectives against enumeration, their definitions, and their truth tables."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.network import Encoded, Selector
from lever_plus.rl import losses

ALL = torch.ones(2, 4, dtype=torch.bool)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def step_distributions(policy: Selector, encoded: Encoded, every: Tensor) -> Tensor:
    return policy.step_log_probs(encoded, every)[:, :, : every.shape[2]]


@pytest.fixture
def reference(policy: Selector) -> Selector:
    """A policy near the other one."""
    other = Selector(policy.config).double().eval()
    torch.manual_seed(11)
    moved = {k: v + 0.1 * torch.randn_like(v) for k, v in policy.state_dict().items()}
    other.load_state_dict(moved)
    return other


@pytest.fixture
def reference_encoded(reference: Selector) -> Encoded:
    """The query and pool of `encoded`, encoded by the reference."""
    generator = torch.Generator().manual_seed(5)
    query = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    return reference.encode(query, torch.randn(1, 5, 6, generator=generator, dtype=torch.float64))


def test_sft_is_the_weighted_negative_log_likelihood() -> None:
    log_probs, weights = numbers(2, 4, 3), numbers(2, 4, seed=1).softmax(-1)
    expected = -sum(
        weights[b, g] * log_probs[b, g, t] for b in range(2) for g in range(4) for t in range(3)
    )
    assert_close(losses.sft(log_probs, weights), torch.as_tensor(expected / 2))


def test_rce_weighs_by_the_softmax_of_reward_over_tau() -> None:
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    returns = torch.tensor([[0.5 * math.log(3), 0.0]])
    expected = torch.tensor(0.75 * 3.0 + 0.25 * 7.0)
    assert_close(losses.rce(log_probs, returns, ALL[:1, :2], tau=0.5), expected)


def test_rce_with_a_tiny_tau_imitates_the_best_candidate_alone() -> None:
    log_probs, returns = numbers(2, 4, 3), torch.tensor([[0.1, 0.9, 0.3, 0.2]] * 2).double()
    best = -log_probs[:, 1].sum(-1).mean()
    assert_close(losses.rce(log_probs, returns, ALL, tau=1e-3), best)


@pytest.mark.invariant
def test_marked_duplicates_change_no_loss() -> None:
    log_probs, returns, advantages = numbers(2, 4, 3), numbers(2, 4, seed=1), numbers(2, 4, 3)
    keep = torch.cat([ALL, ~ALL[:, :2]], dim=1)

    def double(values: Tensor) -> Tensor:
        return torch.cat([values, values[:, :2]], dim=1)

    assert_close(
        losses.rce(double(log_probs), double(returns), keep, 0.5),
        losses.rce(log_probs, returns, ALL, 0.5),
    )
    old = log_probs + 0.3 * numbers(2, 4, 3, seed=2)
    doubled = losses.grpo(double(log_probs), double(old), double(advantages), keep, 0.2, 0.28)
    assert_close(doubled, losses.grpo(log_probs, old, advantages, ALL, 0.2, 0.28))


@pytest.mark.invariant
def test_at_ratio_one_the_surrogate_has_the_reinforce_gradient() -> None:
    log_probs, advantages = numbers(2, 4, 3).requires_grad_(), numbers(2, 4, 3, seed=1)
    loss, clipped = losses.grpo(log_probs, log_probs.detach(), advantages, ALL, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert_close(actual, -advantages / 8)
    assert_close(loss.detach(), -advantages.sum(-1).mean())
    assert clipped == 0


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.25, +1.0, True),
        (1.30, +1.0, False),
        (0.50, +1.0, True),
        (0.85, -1.0, True),
        (0.75, -1.0, False),
        (1.50, -1.0, True),
        (1.50, 0.0, False),
    ],
)
def test_only_steps_that_went_too_far_in_their_own_direction_are_clipped(
    ratio: float, advantage: float, moves: bool
) -> None:
    log_probs = torch.tensor([[[math.log(ratio)]]]).requires_grad_()
    old, kept = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    loss, clipped = losses.grpo(log_probs, old, torch.full_like(old, advantage), kept, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    expected = -ratio * advantage if moves else 0.0
    assert actual.item() == pytest.approx(expected)
    assert clipped.item() == float(not moves and advantage != 0)


def test_one_clipped_step_leaves_the_other_steps_their_gradient() -> None:
    log_probs = torch.tensor([[[1.0, 0.0, 0.1]]]).requires_grad_()
    old, kept = torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)
    loss, clipped = losses.grpo(log_probs, old, torch.ones(1, 1, 3), kept, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert actual[0, 0].tolist() == pytest.approx([0.0, -1.0, -math.exp(0.1)])
    assert clipped.item() == pytest.approx(1 / 3)


def test_only_kept_candidates_count_in_the_surrogate_and_the_clipped_share() -> None:
    log_probs, advantages = numbers(1, 4, 3), torch.ones(1, 4, 3, dtype=torch.float64)
    old = log_probs.clone()
    old[0, 1:] -= 1.0
    keep = torch.tensor([[True, False, False, True]])
    loss, clipped = losses.grpo(log_probs, old, advantages, keep, 0.2, 0.28)
    assert loss.item() == pytest.approx(-(3 * 1.0 + 3 * 1.28) / 2)
    assert clipped.item() == pytest.approx(0.5)


def test_every_query_weighs_the_same_however_many_candidates_it_keeps() -> None:
    log_probs = numbers(2, 4, 3).requires_grad_()
    keep = torch.tensor([[True] * 4, [True, False, False, False]])
    ones = torch.ones(2, 4, 3, dtype=torch.float64)
    loss, _ = losses.grpo(log_probs, log_probs.detach(), ones, keep, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert_close(actual.sum((1, 2)), torch.tensor([-1.5, -1.5], dtype=torch.float64))


@pytest.mark.parametrize("distance", [500.0, -500.0])
def test_a_huge_ratio_overflows_neither_loss_nor_gradient(distance: float) -> None:
    log_probs = torch.full((1, 1, 3), distance).requires_grad_()
    old, kept = torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)
    loss, _ = losses.grpo(log_probs, old, -torch.ones(1, 1, 3), kept, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert loss.isfinite()
    assert actual.isfinite().all()


@pytest.mark.invariant
def test_exact_kl_is_the_enumerated_one(
    policy: Selector,
    encoded: Encoded,
    reference: Selector,
    reference_encoded: Encoded,
    every: Tensor,
) -> None:
    """Chain rule: the KL of whole pointers is the expected sum of the KLs of their steps."""
    ours = policy.log_probs(encoded, every).sum(-1)
    theirs = reference.log_probs(reference_encoded, every).sum(-1)
    enumerated = (ours.exp() * (ours - theirs)).sum(-1)
    steps = losses.exact_kl(
        step_distributions(policy, encoded, every),
        step_distributions(reference, reference_encoded, every),
    )
    assert steps.shape == (1, 60, 3)
    assert (steps >= 0).all()
    assert enumerated.item() > 0.01
    assert_close((ours.exp() * steps.sum(-1)).sum(-1), enumerated, rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_exact_kl_points_from_the_policy_to_the_reference() -> None:
    ours, theirs = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert losses.exact_kl(ours, theirs).item() == pytest.approx(expected)


@pytest.mark.invariant
def test_exact_kl_and_its_gradient_are_zero_at_the_reference(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    steps = step_distributions(policy, encoded, every)
    kl = losses.exact_kl(steps, steps.detach())
    assert (kl == 0).all()
    for gradient in torch.autograd.grad(kl.sum(), list(policy.parameters())):
        assert gradient.abs().max() < 1e-12


def test_exact_kl_has_a_finite_gradient_through_masked_candidates(
    policy: Selector,
    encoded: Encoded,
    reference: Selector,
    reference_encoded: Encoded,
    every: Tensor,
) -> None:
    target = step_distributions(reference, reference_encoded, every).detach()
    kl = losses.exact_kl(step_distributions(policy, encoded, every), target)
    gradients = torch.autograd.grad(kl.sum(), list(policy.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3


@pytest.mark.invariant
def test_entropy_is_that_of_the_step_distributions() -> None:
    log_probs = torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]).log()
    expected = torch.tensor([math.log(4), math.log(2), 0.0])
    assert_close(losses.entropy(log_probs), expected)


@pytest.mark.invariant
def test_entropy_of_the_steps_adds_up_to_the_enumerated_one(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    totals = policy.log_probs(encoded, every).sum(-1)
    steps = losses.entropy(step_distributions(policy, encoded, every)).sum(-1)
    assert_close((totals.exp() * steps).sum(), -(totals.exp() * totals).sum(), rtol=0, atol=1e-12)


BETA = 0.3


def whole(policy: Selector, encoded: Encoded, every: Tensor) -> Tensor:
    """Return the log-probability of every pointer, [60]."""
    return policy.log_probs(encoded, every).sum(-1)[0]


def gradient(value: Tensor, policy: Selector) -> Tensor:
    parts = torch.autograd.grad(value, list(policy.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def agro_of(log_pi: Tensor, log_ref: Tensor, returns: Tensor, members: Tensor) -> Tensor:
    """Return the loss over all groups [n, size] of pointers."""
    keep = torch.ones(members.shape, dtype=torch.bool)
    picked = log_pi[members].unsqueeze(-1)
    return losses.agro(picked, log_ref[members], returns[members], keep, BETA)


@pytest.mark.invariant
def test_agro_is_half_the_mean_squared_difference_over_pairs() -> None:
    log_probs, reference, returns = numbers(2, 4, 3), numbers(2, 4, seed=1), numbers(2, 4, seed=2)
    residual = returns - BETA * (log_probs.sum(-1) - reference)
    pairs = [(residual[:, i] - residual[:, j]).square() / 2 for i in range(4) for j in range(i)]
    expected = torch.stack(pairs).mean() / (2 * BETA)
    assert_close(losses.agro(log_probs, reference, returns, ALL, BETA), expected)


@pytest.mark.invariant
def test_agro_has_its_minimum_at_the_tilted_reference_whatever_filled_the_list(
    reference: Selector, reference_encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    """At reference exp(R / beta) / Z no list has variance, so none has a gradient."""
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
    policy: Selector,
    encoded: Encoded,
    reference: Selector,
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
                log_pi[pair].view(1, 2, 1), log_ref[pair][None], returns[pair][None], keep, BETA
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
    policy: Selector, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    log_probs = policy.log_probs(encoded, every[:, :7])
    returns, keep = rewards[:, :7].mean(-1), torch.ones(1, 7, dtype=torch.bool)
    loss = losses.agro(log_probs, log_probs.detach().sum(-1), returns, keep, BETA)
    others = (returns.sum(-1, keepdim=True) - returns) / 6
    reinforce = -((returns - others) * log_probs.sum(-1)).mean()
    assert_close(gradient(loss, policy), gradient(reinforce, policy), rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_agro_forgets_a_constant_and_scales_with_reward_and_beta() -> None:
    log_probs, reference, returns = numbers(2, 4, 3), numbers(2, 4, seed=1), numbers(2, 4, seed=2)
    loss = losses.agro(log_probs, reference, returns, ALL, BETA)
    assert_close(losses.agro(log_probs, reference, returns + 7.0, ALL, BETA), loss)
    scaled = losses.agro(log_probs, reference, 5 * returns, ALL, 5 * BETA)
    assert_close(scaled, 5 * loss)


@pytest.mark.invariant
def test_marked_duplicates_and_groups_of_one_change_no_agro_loss() -> None:
    log_probs, reference, returns = numbers(2, 4, 3), numbers(2, 4, seed=1), numbers(2, 4, seed=2)
    keep = torch.cat([ALL, ~ALL[:, :2]], dim=1)
    doubled = (torch.cat([x, x[:, :2]], dim=1) for x in (log_probs, reference, returns))
    loss = losses.agro(log_probs, reference, returns, ALL, BETA)
    assert_close(losses.agro(*doubled, keep, BETA), loss)
    one = torch.tensor([[True, False, False, False]] * 2)
    assert losses.agro(log_probs, reference, returns, one, BETA) == 0
