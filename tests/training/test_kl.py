"""KL and entropy: exact over whole distributions, and the older system's penalty."""

import math

import pytest
import torch
from enumeration import gradient, whole
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.decoding import sample
from lever_plus.policy.network import Encoded, Policy
from lever_plus.training import losses

SAMPLES = 40_000


def step_distributions(policy: Policy, encoded: Encoded, every: Tensor) -> Tensor:
    return policy.step_log_probs(encoded, every)[:, :, : every.shape[2]]


@pytest.mark.invariant
def test_exact_kl_is_the_enumerated_one(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
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
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    steps = step_distributions(policy, encoded, every)
    kl = losses.exact_kl(steps, steps.detach())
    assert (kl == 0).all()
    assert gradient(kl.sum(), policy).abs().max() < 1e-12


def test_exact_kl_has_a_finite_gradient_through_masked_candidates(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
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
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    totals = policy.log_probs(encoded, every).sum(-1)
    steps = losses.entropy(step_distributions(policy, encoded, every)).sum(-1)
    assert_close((totals.exp() * steps).sum(), -(totals.exp() * totals).sum(), rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_a_monte_carlo_estimate_of_the_kl_agrees_with_the_exact_one(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
    reference_encoded: Encoded,
    every: Tensor,
) -> None:
    """k1 = log pi - log reference over samples of pi: within 4 standard errors."""
    ours, theirs = whole(policy, encoded, every), whole(reference, reference_encoded, every)
    exact = (ours.exp() * (ours - theirs)).sum().item()
    drawn = sample(policy, encoded, 3, SAMPLES, 1.0, torch.Generator().manual_seed(1))
    log_ref = reference.log_probs(reference_encoded, drawn.pointers).sum(-1).detach()
    estimate = drawn.log_probs.sum(-1) - log_ref
    error = estimate.std().item() / math.sqrt(SAMPLES)
    assert error < exact / 10
    assert abs(estimate.mean().item() - exact) < 4 * error


def test_k3_is_r_minus_1_minus_log_r_with_the_policy_over_the_reference() -> None:
    """By hand, at ratios 3 and 1/3: the inverse ratio would swap the two values."""
    log_probs = torch.tensor([0.6, 0.2]).log().requires_grad_()
    found = losses.k3(log_probs, torch.tensor([0.2, 0.6]).log())
    assert found.tolist() == pytest.approx([2 - math.log(3), math.log(3) - 2 / 3])
    (slope,) = torch.autograd.grad(found.sum(), log_probs)
    assert slope.tolist() == pytest.approx([2.0, -2 / 3])


@pytest.mark.invariant
def test_k3_has_the_mean_that_its_docstring_names_and_is_zero_at_the_reference(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
    reference_encoded: Encoded,
    every: Tensor,
) -> None:
    """By enumeration: the reversed KL over the reference, chi2 minus the KL over the policy."""
    ours, theirs = whole(policy, encoded, every), whole(reference, reference_encoded, every)
    penalties = losses.k3(ours, theirs)
    assert (penalties >= 0).all()
    reverse = (theirs.exp() * (theirs - ours)).sum()
    assert_close((theirs.exp() * penalties).sum(), reverse, rtol=0, atol=1e-12)
    kl = (ours.exp() * (ours - theirs)).sum()
    chi2 = (2 * ours - theirs).exp().sum() - 1
    assert_close((ours.exp() * penalties).sum(), chi2 - kl, rtol=0, atol=1e-12)
    assert losses.k3(ours, ours).equal(torch.zeros(60, dtype=torch.float64))


@pytest.mark.invariant
def test_as_a_loss_k3_has_half_the_gradient_of_chi2(
    policy: Policy,
    encoded: Encoded,
    reference: Policy,
    reference_encoded: Encoded,
    every: Tensor,
) -> None:
    """On samples of pi. It is no KL's gradient, but it also leads to the reference."""
    ours = whole(policy, encoded, every)
    theirs = whole(reference, reference_encoded, every).detach()
    as_loss = gradient((ours.detach().exp() * losses.k3(ours, theirs)).sum(), policy)
    half = gradient((2 * ours - theirs).exp().sum() / 2, policy)
    forward = gradient((ours.exp() * (ours - theirs)).sum(), policy)
    assert_close(as_loss, half, rtol=0, atol=1e-12)
    assert (as_loss - forward).norm() > 0.01 * forward.norm()


@pytest.mark.parametrize("distance", [500.0, -500.0])
def test_a_huge_distance_overflows_neither_k3_nor_its_gradient(distance: float) -> None:
    log_probs = torch.tensor([distance]).requires_grad_()
    value = losses.k3(log_probs, torch.zeros(1))
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), log_probs)[0].isfinite().all()
