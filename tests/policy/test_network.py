"""The selector is a probability distribution over pointers that depends on what it should."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.network import Encoded, Selector, SelectorConfig

Features = tuple[Tensor, Tensor]


@pytest.mark.invariant
def test_probabilities_of_all_pointers_sum_to_one(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    totals = policy.log_probs(encoded, every).sum(-1).exp().sum(-1)
    assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_probabilities_sum_to_one_for_a_real_pool_in_float32() -> None:
    torch.manual_seed(0)
    policy = Selector(SelectorConfig(4, 6, 16, shots=2, logit_clip=10.0)).eval()
    encoded = policy.encode(3 * torch.randn(3, 4), 3 * torch.randn(3, 32, 6))
    pairs = torch.tensor(list(permutations(range(32), 2))).expand(3, -1, -1)
    totals = policy.log_probs(encoded, pairs).sum(-1).exp().sum(-1)
    assert_close(totals, torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.invariant
def test_a_picked_candidate_has_probability_zero_afterwards(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    steps = policy.step_log_probs(encoded, every)
    for step in range(3):
        before = torch.zeros(*every.shape[:2], 5, dtype=torch.bool)
        before.scatter_(-1, every[..., :step], True)
        assert (steps[:, :, step] == -math.inf).equal(before)


def test_masked_candidates_leave_every_gradient_finite(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    policy.log_probs(encoded, every).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


def test_every_parameter_has_an_effect(policy: Selector, encoded: Encoded, every: Tensor) -> None:
    policy.log_probs(encoded, every[:, :1]).sum().backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name
    assert (policy.step.weight.grad != 0).any(-1).all(), "a step embedding is not used"


@pytest.mark.invariant
def test_permuting_the_pool_relabels_the_pointers(
    policy: Selector, features: Features, every: Tensor
) -> None:
    queries, pools = features
    order = torch.tensor([3, 0, 4, 1, 2])
    steps = policy.step_log_probs(policy.encode(queries, pools), every)
    relabelled = order.argsort()[every]
    permuted = policy.step_log_probs(policy.encode(queries, pools[:, order]), relabelled)
    assert_close(permuted, steps[..., order], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_a_query_is_scored_alone_as_in_a_batch(
    policy: Selector, features: Features, encoded: Encoded, every: Tensor
) -> None:
    together = policy.log_probs(encoded, every)
    for row, (query, pool) in enumerate(zip(*features, strict=True)):
        alone = policy.log_probs(policy.encode(query[None], pool[None]), every[row][None])
        assert_close(alone[0], together[row], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_a_pointer_is_scored_alone_as_in_a_group(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    together = policy.log_probs(encoded, every)
    for column in (0, 17, 59):
        alone = policy.log_probs(encoded, every[:, [column]])
        assert_close(alone[:, 0], together[:, column], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_teacher_forcing_of_a_list_equals_step_by_step(
    policy: Selector, encoded: Encoded, every: Tensor
) -> None:
    parallel = policy.step_log_probs(encoded, every)
    for step in range(3):
        serial = policy.step_log_probs(encoded, every[..., :step])
        assert serial.shape[2] == step + 1
        assert_close(serial[:, :, -1], parallel[:, :, step], rtol=0, atol=1e-12)


def test_the_first_step_depends_on_the_query(
    policy: Selector, features: Features, every: Tensor
) -> None:
    queries, pools = features
    one = policy.step_log_probs(policy.encode(queries, pools), every[..., :0])
    other = policy.step_log_probs(policy.encode(queries.flip(0), pools), every[..., :0])
    assert (one - other).abs().max() > 0.1


def test_a_step_depends_on_which_candidates_were_picked(policy: Selector, encoded: Encoded) -> None:
    """A ranking that only masks what was picked keeps the odds of the others; a policy must not."""
    picks = torch.tensor([[0], [1]]).expand(4, -1, -1)
    second = policy.step_log_probs(encoded, picks)[:, :, 1]
    odds = second[..., 2] - second[..., 3]
    assert (odds[:, 0] - odds[:, 1]).abs().min() > 0.01


def test_a_step_depends_on_the_order_of_the_picks(policy: Selector, encoded: Encoded) -> None:
    picks = torch.tensor([[0, 1], [1, 0]]).expand(4, -1, -1)
    third = policy.step_log_probs(encoded, picks)[:, :, 2, 2:]
    assert (third[:, 0] - third[:, 1]).abs().amax(-1).min() > 0.01


def test_a_later_step_sees_more_than_the_last_pick(policy: Selector, encoded: Encoded) -> None:
    picks = torch.tensor([[0, 2], [1, 2]]).expand(4, -1, -1)
    third = policy.step_log_probs(encoded, picks)[:, :, 2, 3:]
    odds = third[..., 0] - third[..., 1]
    assert (odds[:, 0] - odds[:, 1]).abs().min() > 1e-3


@pytest.mark.invariant
def test_the_clip_bounds_the_odds_of_two_candidates(
    policy: Selector, features: Features, every: Tensor
) -> None:
    queries, pools = features
    steps = policy.step_log_probs(policy.encode(1e4 * queries, 1e4 * pools), every[..., :0])
    spread = steps.amax(-1) - steps.amin(-1)
    assert spread.max() <= 2 * policy.config.logit_clip + 1e-9
    assert spread.max() > 1.9 * policy.config.logit_clip


def test_dropout_is_off_in_eval_mode_and_on_in_training(
    config: SelectorConfig, policy: Selector, features: Features, every: Tensor
) -> None:
    noisy = Selector(replace(config, dropout=0.5)).double()
    noisy.load_state_dict(policy.state_dict())
    exact = policy.log_probs(policy.encode(*features), every)
    noisy.eval()
    assert noisy.log_probs(noisy.encode(*features), every).equal(exact)
    noisy.train()
    assert not noisy.log_probs(noisy.encode(*features), every).equal(exact)


def test_without_dropout_training_mode_changes_nothing(
    policy: Selector, features: Features, every: Tensor
) -> None:
    exact = policy.log_probs(policy.encode(*features), every)
    policy.train()
    assert policy.log_probs(policy.encode(*features), every).equal(exact)
