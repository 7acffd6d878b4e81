"""Decoding agrees with the enumerated distribution, and reports the log-probs it decoded from."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.decoding import Decoded, beam, greedy, sample, uniform
from lever_plus.policy.network import Encoded, Policy

DRAWS = 20_000
LARGEST_Z = 4.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tempered(policy: Policy, encoded: Encoded, pointers: Tensor, temperature: float) -> Tensor:
    """Return the log-probability of every pick under softmax(log pi / temperature), [B, G, T]."""
    steps = policy.step_log_probs(encoded, pointers)[:, :, : pointers.shape[2]]
    scaled = (steps / temperature).log_softmax(-1)
    return scaled.gather(-1, pointers.unsqueeze(-1)).squeeze(-1)


def largest_z(decoded: Decoded, every: Tensor, probabilities: Tensor) -> float:
    """Return the largest deviation of the frequencies over all pointers, in standard errors."""
    base = torch.tensor([25, 5, 1])
    drawn, known = (decoded.pointers * base).sum(-1), (every * base).sum(-1)
    counts = (drawn.unsqueeze(1) == known.unsqueeze(2)).sum(-1)
    expected = probabilities * drawn.shape[1]
    return ((counts - expected) / (expected * (1 - probabilities)).sqrt()).abs().max().item()


@pytest.mark.invariant
def test_beam_of_full_width_lists_all_pointers_by_probability(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    exact, order = policy.log_probs(encoded, every).sum(-1).sort(descending=True)
    decoded = beam(policy, encoded, shots=3, width=60)
    assert decoded.pointers.equal(every.gather(1, order.unsqueeze(-1).expand(-1, -1, 3)))
    assert_close(decoded.log_probs.sum(-1), exact, rtol=0, atol=1e-12)


def test_beam_returns_distinct_pointers_best_first(policy: Policy, encoded: Encoded) -> None:
    decoded = beam(policy, encoded, shots=3, width=7)
    assert decoded.pointers.shape == (4, 7, 3)
    for group, totals in zip(decoded.pointers.tolist(), decoded.log_probs.sum(-1), strict=True):
        assert len({tuple(pointer) for pointer in group}) == 7
        assert all(len(set(pointer)) == 3 for pointer in group)
        assert totals.equal(totals.sort(descending=True).values)


@pytest.mark.invariant
@pytest.mark.parametrize("width", [60, 20])
def test_a_beam_as_wide_as_the_penultimate_step_finds_the_true_top(
    policy: Policy, encoded: Encoded, every: Tensor, width: int
) -> None:
    """With all 20 prefixes of two picks kept, none of the best pointers can be lost."""
    exact, order = policy.log_probs(encoded, every).sum(-1).topk(width, dim=1)
    decoded = beam(policy, encoded, shots=3, width=width)
    assert decoded.pointers.equal(every.gather(1, order.unsqueeze(-1).expand(-1, -1, 3)))
    assert_close(decoded.log_probs.sum(-1), exact, rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_more_pointers_than_there_are_cannot_be_had(
    policy: Policy, encoded: Encoded, features: tuple[Tensor, Tensor]
) -> None:
    for shots, there_are in ((1, 5), (2, 20), (3, 60)):
        beam(policy, encoded, shots, there_are)
        with pytest.raises(ValueError, match=f"fewer than {there_are + 1} pointers"):
            beam(policy, encoded, shots, there_are + 1)
    smaller = torch.tensor([[True] * 5] * 3 + [[True] * 4 + [False]])
    padded = policy.encode(*features, smaller)
    beam(policy, padded, 3, 24)
    with pytest.raises(ValueError, match="a pool has fewer than 25 pointers"):
        beam(policy, padded, 3, 25)


@pytest.mark.parametrize("config", ["stateful"], indirect=True)
def test_a_wider_beam_finds_no_worse_a_pointer(policy: Policy, encoded: Encoded) -> None:
    """For this policy, greedy pointers are not always the best ones."""
    best = [beam(policy, encoded, 3, width).log_probs.sum(-1)[:, 0] for width in (1, 60)]
    assert (best[1] >= best[0] - 1e-12).all()
    assert (best[1] > best[0] + 1e-3).any()


@pytest.mark.invariant
def test_greedy_takes_the_most_probable_candidate_at_every_step(
    policy: Policy, encoded: Encoded
) -> None:
    pointers = torch.zeros(4, 1, 0, dtype=torch.long)
    for _ in range(3):
        best = policy.step_log_probs(encoded, pointers)[:, :, -1].argmax(-1, keepdim=True)
        pointers = torch.cat([pointers, best], dim=-1)
    assert greedy(policy, encoded, 3).pointers.equal(pointers)


@pytest.mark.invariant
def test_greedy_is_beam_search_of_width_one(policy: Policy, encoded: Encoded) -> None:
    one, other = greedy(policy, encoded, 3), beam(policy, encoded, 3, width=1)
    assert one.pointers.equal(other.pointers)
    assert one.log_probs.equal(other.log_probs)


@pytest.mark.invariant
@pytest.mark.parametrize("size", [5, 19, 64, 200])
def test_of_equal_candidates_greedy_takes_the_first(policy: Policy, size: int) -> None:
    """Hosts ask for one question, pipelines for many: other queries in a batch change nothing."""
    torch.manual_seed(1)
    queries = torch.randn(3, policy.config.query_size, dtype=torch.float64)
    one = torch.randn(1, 1, policy.config.candidate_size, dtype=torch.float64)
    valid = torch.ones(3, size, dtype=torch.bool)
    valid[1, -2:] = False
    encoded = policy.encode(queries, one.expand(3, size, -1), valid)
    assert greedy(policy, encoded, shots=3).pointers.tolist() == [[[0, 1, 2]]] * 3


def test_a_shorter_greedy_pointer_is_a_prefix_of_the_longer(
    policy: Policy, encoded: Encoded
) -> None:
    assert greedy(policy, encoded, 2).pointers.equal(greedy(policy, encoded, 3).pointers[..., :2])


@pytest.mark.invariant
@pytest.mark.parametrize("width", [1, 4, 60])
def test_log_probs_of_beam_search_are_the_teacher_forced_ones(
    policy: Policy, encoded: Encoded, width: int
) -> None:
    decoded = beam(policy, encoded, 3, width)
    exact = policy.log_probs(encoded, decoded.pointers)
    assert_close(decoded.log_probs, exact, rtol=0, atol=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_log_probs_of_samples_are_those_of_the_tempered_policy(
    policy: Policy, encoded: Encoded, temperature: float
) -> None:
    decoded = sample(policy, encoded, 3, 50, temperature, generator())
    exact = tempered(policy, encoded, decoded.pointers, temperature)
    assert_close(decoded.log_probs, exact, rtol=0, atol=1e-12)
    plain = policy.log_probs(encoded, decoded.pointers)
    if temperature == 1.0:
        assert_close(decoded.log_probs, plain, rtol=0, atol=1e-12)
    else:
        assert (decoded.log_probs - plain).abs().max() > 0.01


@pytest.mark.invariant
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_frequencies_of_samples_are_their_probabilities(
    policy: Policy, encoded: Encoded, every: Tensor, temperature: float
) -> None:
    decoded = sample(policy, encoded, 3, DRAWS, temperature, generator())
    probabilities = tempered(policy, encoded, every, temperature).sum(-1).exp()
    assert largest_z(decoded, every, probabilities) < LARGEST_Z


@pytest.mark.invariant
def test_uniform_pointers_are_uniform_and_say_so(encoded: Encoded, every: Tensor) -> None:
    decoded = uniform(encoded, 3, DRAWS, generator())
    assert decoded.pointers.shape == decoded.log_probs.shape == (4, DRAWS, 3)
    steps = -torch.tensor([5.0, 4.0, 3.0]).log()
    assert_close(decoded.log_probs, steps.expand(4, DRAWS, 3))
    assert largest_z(decoded, every, torch.full((4, 60), 1 / 60)) < LARGEST_Z


def test_no_decoder_repeats_a_candidate(policy: Policy, encoded: Encoded) -> None:
    for decoded in (
        sample(policy, encoded, 3, 500, 5.0, generator()),
        uniform(encoded, 3, 500, generator()),
        beam(policy, encoded, 3, 60),
    ):
        ordered = decoded.pointers.sort(-1).values
        assert (ordered[..., 1:] != ordered[..., :-1]).all()
        assert (decoded.log_probs > -math.inf).all()


def test_samples_depend_on_the_generator_alone(policy: Policy, encoded: Encoded) -> None:
    first = sample(policy, encoded, 3, 20, 1.0, generator(1))
    torch.manual_seed(99)
    again = sample(policy, encoded, 3, 20, 1.0, generator(1))
    other = sample(policy, encoded, 3, 20, 1.0, generator(2))
    assert first.pointers.equal(again.pointers)
    assert not first.pointers.equal(other.pointers)


def test_decoding_keeps_no_graph(policy: Policy, encoded: Encoded) -> None:
    assert not beam(policy, encoded, 3, 2).log_probs.requires_grad
    assert not sample(policy, encoded, 3, 2, 1.0, generator()).log_probs.requires_grad
