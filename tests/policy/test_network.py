"""The policy is a probability distribution over pointers that depends on what it should."""

import math
from dataclasses import replace
from itertools import permutations
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.dropout import Dropout
from lever_plus.policy.kinds import KINDS, build_policy, with_dropout
from lever_plus.policy.network import Encoded, Policy, PolicyConfig

Features = tuple[Tensor, Tensor]


@pytest.mark.invariant
def test_probabilities_of_all_pointers_sum_to_one(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    totals = policy.log_probs(encoded, every).sum(-1).exp().sum(-1)
    assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one_for_a_real_pool_in_float32(
    kind: Literal["residual", "stateful", "v2"],
) -> None:
    torch.manual_seed(0)
    policy = build_policy(PolicyConfig(kind, 4, 6, 16, shots=2)).eval()
    encoded = policy.encode(3 * torch.randn(3, 4), 3 * torch.randn(3, 32, 6))
    pairs = torch.tensor(list(permutations(range(32), 2))).expand(3, -1, -1)
    totals = policy.log_probs(encoded, pairs).sum(-1).exp().sum(-1)
    assert_close(totals, torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.invariant
def test_a_picked_candidate_has_probability_zero_afterwards(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    steps = policy.step_log_probs(encoded, every)
    for step in range(3):
        before = torch.zeros(*every.shape[:2], 5, dtype=torch.bool)
        before.scatter_(-1, every[..., :step], True)
        assert (steps[:, :, step] == -math.inf).equal(before)


@pytest.mark.invariant
def test_picked_candidates_and_padding_get_no_gradient(
    policy: Policy,
    features: Features,
    every: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their logits are masked, so no loss on the log-probs can move them."""
    valid = torch.tensor([[True] * 4 + [False]] * 4)
    encoded, pointers = policy.encode(*features, valid), every[:, (every[0] < 4).all(-1)]
    logits = policy.scores(encoded, pointers, range(3)).detach().clone().requires_grad_()

    def given(_: Encoded, some: Tensor, steps: range) -> Tensor:
        return logits[:, : some.shape[1], steps.start : steps.stop]

    monkeypatch.setattr(policy, "scores", given)
    steps = policy.step_log_probs(encoded, pointers)
    closed = steps == -math.inf
    assert closed[..., 4].all()
    assert not closed[:, :, 0, :4].any()
    policy.log_probs(encoded, pointers).square().sum().backward()
    assert logits.grad is not None
    assert (logits.grad[closed] == 0).all()
    assert (logits.grad[:, :, 1:][~closed[:, :, 1:]] != 0).all()
    assert (logits.grad[:, 0, 0, :4] != 0).all()


def test_masked_candidates_leave_every_gradient_finite(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    policy.log_probs(encoded, every).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.parameters())


def test_every_parameter_has_an_effect(policy: Policy, encoded: Encoded, every: Tensor) -> None:
    policy.log_probs(encoded, every[:, :1]).sum().backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.invariant
def test_permuting_the_pool_relabels_the_pointers(
    policy: Policy, features: Features, every: Tensor
) -> None:
    queries, pools = features
    order = torch.tensor([3, 0, 4, 1, 2])
    steps = policy.step_log_probs(policy.encode(queries, pools), every)
    relabelled = order.argsort()[every]
    permuted = policy.step_log_probs(policy.encode(queries, pools[:, order]), relabelled)
    assert_close(permuted, steps[..., order], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_a_query_is_scored_alone_as_in_a_batch(
    policy: Policy, features: Features, encoded: Encoded, every: Tensor
) -> None:
    together = policy.log_probs(encoded, every)
    for row, (query, pool) in enumerate(zip(*features, strict=True)):
        alone = policy.log_probs(policy.encode(query[None], pool[None]), every[row][None])
        assert_close(alone[0], together[row], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_a_batch_of_32_queries_with_pools_of_different_sizes_is_scored_as_each_alone(
    policy: Policy,
) -> None:
    """Padding may hold any numbers, which change nothing."""
    torch.manual_seed(1)
    sizes = torch.arange(32) % 5 + 3
    queries = torch.randn(32, 4, dtype=torch.float64)
    pools = 100 * torch.randn(32, 7, 6, dtype=torch.float64)
    pools[torch.arange(7) < sizes.unsqueeze(-1)] /= 100
    valid = torch.arange(7) < sizes.unsqueeze(-1)
    pointers = torch.tensor([[[0, 1, 2], [2, 0, 1]]]).expand(32, -1, -1)
    together = policy.step_log_probs(policy.encode(queries, pools, valid), pointers)
    for row, size in enumerate(sizes.tolist()):
        encoded = policy.encode(queries[row, None], pools[row, None, :size])
        alone = policy.step_log_probs(encoded, pointers[row, None])
        assert_close(together[row, ..., :size], alone[0], rtol=0, atol=1e-12)
        assert (together[row, ..., size:] == -math.inf).all()


@pytest.mark.invariant
def test_a_pointer_is_scored_alone_as_in_a_group(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    together = policy.log_probs(encoded, every)
    for column in (0, 17, 59):
        alone = policy.log_probs(encoded, every[:, [column]])
        assert_close(alone[:, 0], together[:, column], rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_teacher_forcing_of_a_list_equals_step_by_step(
    policy: Policy, encoded: Encoded, every: Tensor
) -> None:
    parallel = policy.step_log_probs(encoded, every)
    for step in range(3):
        serial = policy.step_log_probs(encoded, every[..., :step])
        assert serial.shape[2] == step + 1
        assert_close(serial[:, :, -1], parallel[:, :, step], rtol=0, atol=1e-12)
        alone = policy.next_log_probs(encoded, every[..., :step])
        assert_close(alone, parallel[:, :, step], rtol=0, atol=1e-12)


def test_the_first_step_depends_on_the_query(
    policy: Policy, features: Features, every: Tensor
) -> None:
    queries, pools = features
    one = policy.step_log_probs(policy.encode(queries, pools), every[..., :0])
    other = policy.step_log_probs(policy.encode(queries.flip(0), pools), every[..., :0])
    assert (one - other).abs().max() > 0.1


def test_dropout_is_off_in_eval_mode_and_on_in_training(
    config: PolicyConfig, policy: Policy, features: Features, every: Tensor
) -> None:
    noisy = build_policy(replace(config, dropout=0.5)).double()
    noisy.load_state_dict(policy.state_dict())
    exact = policy.log_probs(policy.encode(*features), every)
    noisy.eval()
    assert noisy.log_probs(noisy.encode(*features), every).equal(exact)
    noisy.train()
    assert not noisy.log_probs(noisy.encode(*features), every).equal(exact)


def test_with_another_dropout_a_policy_has_the_same_weights_of_its_own(
    config: PolicyConfig, policy: Policy
) -> None:
    noisy = with_dropout(policy.float(), 0.5)
    assert noisy.config == replace(config, dropout=0.5)
    assert not noisy.training
    assert {m.rate for m in noisy.modules() if isinstance(m, Dropout)} == {0.5}
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    for name, weight in noisy.state_dict().items():
        assert weight.equal(before[name]), name
        weight.zero_()
        assert policy.state_dict()[name].equal(before[name]), name


@pytest.mark.invariant
def test_without_dropout_training_mode_changes_nothing(
    policy: Policy, features: Features, every: Tensor
) -> None:
    exact = policy.log_probs(policy.encode(*features), every)
    policy.train()
    assert policy.log_probs(policy.encode(*features), every).equal(exact)


def test_pointers_longer_than_the_policy_s_are_refused(policy: Policy, encoded: Encoded) -> None:
    shots = policy.config.shots
    pointers = torch.arange(shots + 1).expand(len(encoded.query), 1, -1)
    with pytest.raises(ValueError, match=f"{shots + 1} picks, but the policy is made for {shots}"):
        policy.log_probs(encoded, pointers)
