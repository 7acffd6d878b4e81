"""Sampling without replacement is exact: marginals, thresholds, and unbiased estimates."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy import decoding
from lever_plus.policy.decoding import Distinct, stochastic_beam
from lever_plus.policy.network import Encoded, Policy

DRAWS = 20_000
LARGEST_Z = 4.5
BASE = torch.tensor([25, 5, 1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated(encoded: Encoded, times: int = DRAWS) -> Encoded:
    """Return the first query many times, as one batch of independent draws."""
    return Encoded(*(part[:1].expand(times, *part.shape[1:]) for part in encoded))


def tempered(policy: Policy, encoded: Encoded, pointers: Tensor, temperature: float) -> Tensor:
    """Return the log-probability of every pick under softmax(log pi / temperature)."""
    steps = policy.step_log_probs(encoded, pointers)[:, :, : pointers.shape[2]]
    scaled = (steps / temperature).log_softmax(-1)
    return scaled.gather(-1, pointers.unsqueeze(-1)).squeeze(-1)


def estimates(drawn: Distinct, values: Tensor) -> Tensor:
    """Return sum_i p_i / q_i f_i of every draw, from f of all pointers by code, [draws]."""
    log_p = drawn.log_probs.sum(-1)
    q = -torch.expm1(-(log_p - drawn.threshold.unsqueeze(-1)).exp())
    return (log_p.exp() / q * values[(drawn.pointers * BASE).sum(-1)]).sum(-1)


def z_of(samples: Tensor, exact: Tensor) -> float:
    return ((samples.mean() - exact).abs() / (samples.std() / math.sqrt(len(samples)))).item()


@pytest.fixture
def values(every: Tensor) -> Tensor:
    """Any function of all pointers, by their code, [125]."""
    table = torch.zeros(125, dtype=torch.float64)
    table[(every[0] * BASE).sum(-1)] = torch.rand(60, generator=generator(4)).double() + 0.5
    return table


@pytest.fixture
def exact(policy: Policy, encoded: Encoded, every: Tensor, values: Tensor) -> Tensor:
    """Its expectation under the policy."""
    chances = policy.log_probs(encoded, every)[0].sum(-1).exp()
    return (chances * values[(every[0] * BASE).sum(-1)]).sum().detach()


@pytest.mark.invariant
def test_pointers_are_distinct_and_repeat_no_candidate(policy: Policy, encoded: Encoded) -> None:
    drawn = stochastic_beam(policy, repeated(encoded, 200), 3, 10, 1.0, generator())
    assert drawn.pointers.shape == drawn.log_probs.shape == (200, 10, 3)
    codes = (drawn.pointers * BASE).sum(-1).sort(-1).values
    assert (codes[:, 1:] != codes[:, :-1]).all()
    ordered = drawn.pointers.sort(-1).values
    assert (ordered[..., 1:] != ordered[..., :-1]).all()


@pytest.mark.invariant
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_log_probs_are_the_teacher_forced_ones_of_the_tempered_policy(
    policy: Policy, encoded: Encoded, temperature: float
) -> None:
    drawn = stochastic_beam(policy, encoded, 3, 7, temperature, generator())
    expected = tempered(policy, encoded, drawn.pointers, temperature)
    assert_close(drawn.log_probs, expected, rtol=0, atol=1e-12)
    if temperature == 1.0:
        plain = policy.log_probs(encoded, drawn.pointers)
        assert_close(drawn.log_probs, plain, rtol=0, atol=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_first_pointer_is_a_sample_of_the_policy(
    policy: Policy, encoded: Encoded, every: Tensor, temperature: float
) -> None:
    drawn = stochastic_beam(policy, repeated(encoded), 3, 3, temperature, generator())
    counts = torch.bincount((drawn.pointers[:, 0] * BASE).sum(-1), minlength=125)
    counts = counts[(every[0] * BASE).sum(-1)]
    chances = tempered(policy, encoded, every, temperature)[0].sum(-1).exp()
    expected = DRAWS * chances
    assert counts.sum() == DRAWS
    assert ((counts - expected) / (expected * (1 - chances)).sqrt()).abs().max() < LARGEST_Z


@pytest.mark.invariant
def test_the_second_pointer_is_a_sample_of_what_the_first_left(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    """Without replacement: P(j second) = sum_i p_i p_j / (1 - p_i)."""
    drawn = stochastic_beam(policy, repeated(encoded), 3, 2, 1.0, generator(1))
    counts = torch.bincount((drawn.pointers[:, 1] * BASE).sum(-1), minlength=125)
    counts = counts[(every[0] * BASE).sum(-1)]
    p = policy.log_probs(encoded, every)[0].sum(-1).exp().detach()
    pairs = p.unsqueeze(1) * p / (1 - p.unsqueeze(1))
    chances = pairs.fill_diagonal_(0).sum(0)
    assert_close(chances.sum().item(), 1.0)
    expected = DRAWS * chances
    assert ((counts - expected) / (expected * (1 - chances)).sqrt()).abs().max() < LARGEST_Z


@pytest.mark.invariant
@pytest.mark.parametrize("width", [1, 4, 12])
def test_weights_from_the_threshold_give_an_estimate_without_bias(
    policy: Policy, encoded: Encoded, values: Tensor, exact: Tensor, width: int
) -> None:
    drawn = stochastic_beam(policy, repeated(encoded), 3, width, 1.0, generator(2))
    assert z_of(estimates(drawn, values), exact) < LARGEST_Z


@pytest.mark.invariant
def test_a_root_that_is_not_sampled_would_bias_the_estimate(
    policy: Policy,
    encoded: Encoded,
    values: Tensor,
    exact: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 0 as the perturbed log-prob of the root, the same weights are wrong."""
    gumbel = decoding._gumbel

    def no_root(like: Tensor, source: torch.Generator) -> Tensor:
        return torch.zeros_like(like) if like.dim() == 2 else gumbel(like, source)

    monkeypatch.setattr(decoding, "_gumbel", no_root)
    drawn = stochastic_beam(policy, repeated(encoded), 3, 4, 1.0, generator(2))
    assert z_of(estimates(drawn, values), exact) > 10


@pytest.mark.invariant
def test_all_pointers_there_are_come_back_with_their_exact_weights(
    policy: Policy, encoded: Encoded, values: Tensor, exact: Tensor
) -> None:
    """No pointer is left out, so every inclusion probability is one."""
    drawn = stochastic_beam(policy, encoded, 3, 60, 1.0, generator())
    assert (drawn.threshold == -math.inf).all()
    assert_close(estimates(drawn, values)[0], exact, rtol=0, atol=1e-12)
    assert_close(drawn.log_probs.sum(-1).exp().sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.invariant
def test_pools_of_different_sizes_share_a_batch(
    policy: Policy, features: tuple[Tensor, Tensor]
) -> None:
    """All 6 pointers of the small pool are found, though others have 60; none points to padding."""
    valid = torch.tensor([[True] * 5] * 3 + [[True] * 3 + [False] * 2])
    encoded = policy.encode(*features, valid)
    drawn = stochastic_beam(policy, encoded, 3, 6, 1.0, generator())
    assert drawn.log_probs.isfinite().all()
    assert drawn.pointers[3].max() == 2
    assert len({tuple(pointer) for pointer in drawn.pointers[3].tolist()}) == 6
    assert drawn.threshold.isfinite().tolist() == [True] * 3 + [False]
    with pytest.raises(ValueError, match="a pool has fewer than 7 pointers"):
        stochastic_beam(policy, encoded, 3, 7, 1.0, generator())


@pytest.mark.invariant
def test_more_pointers_than_there_are_cannot_be_drawn(policy: Policy, encoded: Encoded) -> None:
    for shots, there_are in ((1, 5), (2, 20), (3, 60)):
        stochastic_beam(policy, encoded, shots, there_are, 1.0, generator())
        with pytest.raises(ValueError, match=f"fewer than {there_are + 1} pointers"):
            stochastic_beam(policy, encoded, shots, there_are + 1, 1.0, generator())


def test_draws_depend_on_the_generator_alone(policy: Policy, encoded: Encoded) -> None:
    first = stochastic_beam(policy, encoded, 3, 5, 1.0, generator(1))
    torch.manual_seed(99)
    again = stochastic_beam(policy, encoded, 3, 5, 1.0, generator(1))
    other = stochastic_beam(policy, encoded, 3, 5, 1.0, generator(2))
    assert first.pointers.equal(again.pointers)
    assert first.threshold.equal(again.threshold)
    assert not first.pointers.equal(other.pointers)
    assert not first.log_probs.requires_grad


def test_a_nearly_certain_policy_gives_finite_distinct_draws_in_float32(
    policy: Policy, features: tuple[Tensor, Tensor]
) -> None:
    single = policy.float()
    encoded = single.encode(*(20 * part.float() for part in features))
    drawn = stochastic_beam(single, encoded, 3, 10, 0.05, generator())
    assert drawn.log_probs.isfinite().all()
    codes = (drawn.pointers * BASE).sum(-1).sort(-1).values
    assert (codes[:, 1:] != codes[:, :-1]).all()
