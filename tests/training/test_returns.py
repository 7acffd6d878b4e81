"""Returns and advantages: credit per step, unbiased baseline, no advantage without a difference."""

import math
from collections.abc import Callable

import pytest
import torch
from enumeration import everyone, gradient
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.network import Encoded, Policy
from lever_plus.training import losses
from lever_plus.training.returns import (
    Credit,
    informative,
    leave_one_out,
    mean_to_go,
    reward_to_go,
    statistics,
    total,
    z_score,
)

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)


def expected_reward_gradient(policy: Policy, log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Return the gradient of J = E sum_k w_k R_k by enumeration."""
    return gradient((log_probs.sum(-1).exp() * (rewards * WEIGHTS).sum(-1)).sum(), policy)


def test_reward_to_go_is_the_weighted_reward_of_this_and_later_shots() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
    expected = torch.tensor([[0.7, 0.5, 0.5], [0.45, 0.45, 0.15]], dtype=torch.float64)
    assert_close(reward_to_go(rewards, WEIGHTS), expected)


def test_mean_to_go_is_the_weighted_mean_of_this_and_later_shots() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
    expected = torch.tensor([[0.7, 0.625, 1.0], [0.45, 0.5625, 0.3]], dtype=torch.float64)
    assert_close(mean_to_go(rewards, WEIGHTS), expected)
    last = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert mean_to_go(rewards, last).equal(rewards[:, 2:].expand(-1, 3))
    assert_close(
        mean_to_go(torch.full((2, 3), 0.3).double(), WEIGHTS), torch.full((2, 3), 0.3).double()
    )


@pytest.mark.invariant
@pytest.mark.parametrize("credit", [reward_to_go, mean_to_go])
def test_a_return_knows_no_reward_of_an_earlier_shot(credit: Credit) -> None:
    rewards = torch.rand(4, 3)
    for shot in range(3):
        changed = rewards.clone()
        changed[:, shot] += 1.0
        one, other = (credit(each, torch.tensor([0.2, 0.3, 0.5])) for each in (rewards, changed))
        assert one[:, shot + 1 :].equal(other[:, shot + 1 :])
        assert (one[:, : shot + 1] < other[:, : shot + 1]).all()


@pytest.mark.invariant
def test_reward_to_go_has_the_gradient_of_the_expected_reward(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    log_probs = policy.log_probs(encoded, every)
    probabilities = log_probs.detach().sum(-1).exp()
    credit = (log_probs * reward_to_go(rewards, WEIGHTS)).sum(-1)
    exact = expected_reward_gradient(policy, log_probs, rewards)
    assert exact.norm() > 1e-2
    assert_close(gradient((probabilities * credit).sum(), policy), exact, rtol=0, atol=1e-12)


def test_total_is_the_weighted_reward_of_all_shots_at_every_step() -> None:
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
    expected = torch.tensor([[0.7] * 3, [0.45] * 3], dtype=torch.float64)
    assert_close(total(rewards, WEIGHTS), expected)


@pytest.mark.invariant
def test_total_credit_has_the_same_expected_gradient_as_reward_to_go(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    """Earlier rewards do not depend on a pick: they add variance, but nothing in expectation."""
    log_probs = policy.log_probs(encoded, every)
    probabilities = log_probs.detach().sum(-1).exp()
    credit = (log_probs * total(rewards, WEIGHTS)).sum(-1)
    exact = expected_reward_gradient(policy, log_probs, rewards)
    assert_close(gradient((probabilities * credit).sum(), policy), exact, rtol=0, atol=1e-12)


@pytest.mark.invariant
def test_q_minus_v_as_advantage_has_the_gradient_of_the_expected_reward(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    """Q and V by enumeration: means of the reward-to-go over pointers with the same prefix."""
    log_probs = policy.log_probs(encoded, every)
    chance = log_probs.detach()[0].sum(-1).exp()
    returns = reward_to_go(rewards, WEIGHTS)[0]

    def mean_given(picks: int, step: int) -> Tensor:
        same = (every[0, :, None, :picks] == every[0, None, :, :picks]).all(-1).double()
        return (same @ (chance * returns[:, step])) / (same @ chance)

    steps = [mean_given(step + 1, step) - mean_given(step, step) for step in range(3)]
    advantages = torch.stack(steps, dim=-1)[None] * 60 * chance[None, :, None]
    loss, _ = losses.grpo(log_probs, log_probs.detach(), advantages, everyone(log_probs), 0.2, 0.28)
    exact = expected_reward_gradient(policy, log_probs, rewards)
    assert_close(gradient(loss, policy), -exact, rtol=0, atol=1e-12)


@pytest.mark.invariant
@pytest.mark.parametrize("size", [2, 3])
def test_grpo_is_unbiased_over_all_groups(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor, size: int
) -> None:
    """The mean over all groups of the loss's gradient is the gradient of -J, enumerated.

    With the mean of the whole group as baseline, it would shrink to (G - 1) / G.

    Groups of 3 are over the 12 pointers that start with one of two pairs of candidates, as the
    bandit of their renormalised probabilities.
    """
    log_probs = policy.log_probs(encoded, every)
    if size == 3:
        chosen = torch.arange(0, 60, 5)
        log_probs, rewards = log_probs[:, chosen], rewards[:, chosen].clone()
        rewards[..., :2] = 0.0
        steps = log_probs.sum(-1).log_softmax(-1)
        log_probs = torch.stack([0 * steps, 0 * steps, steps], dim=-1)
    members = torch.cartesian_prod(*[torch.arange(log_probs.shape[1])] * size)
    picked = log_probs[0, members]
    chance = picked.detach().sum((1, 2)).exp()
    assert_close(chance.sum(), torch.ones((), dtype=torch.float64))
    returns = reward_to_go(rewards[0, members], WEIGHTS)
    advantages = leave_one_out(returns, everyone(returns)) * chance[:, None, None] * len(members)
    loss, _ = losses.grpo(picked, picked.detach(), advantages, everyone(returns), 0.2, 0.28)
    exact = expected_reward_gradient(policy, log_probs, rewards)
    assert exact.norm() > 1e-2
    assert_close(gradient(loss, policy), -exact, rtol=0, atol=1e-10)
    centred = (returns - returns.mean(1, keepdim=True)) * chance[:, None, None] * len(members)
    loss, _ = losses.grpo(picked, picked.detach(), centred, everyone(returns), 0.2, 0.28)
    shrunk = -exact * (size - 1) / size
    assert_close(gradient(loss, policy), shrunk, rtol=0, atol=1e-10)


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    returns = torch.rand(4, 5, 3, generator=generator, dtype=torch.float64)
    keep = torch.rand(4, 5, generator=generator) < 0.7
    advantages = leave_one_out(returns, keep)
    for n, i in torch.cartesian_prod(torch.arange(4), torch.arange(5)).tolist():
        others = [returns[n, j] for j in range(5) if j != i and keep[n, j]]
        kept = keep[n, i] and others
        expected = returns[n, i] - torch.stack(others).mean(0) if kept else torch.zeros(3)
        assert_close(advantages[n, i], expected.double())


def test_what_is_not_kept_has_no_say_and_no_advantage() -> None:
    returns = torch.rand(1, 4, 3, dtype=torch.float64)
    keep = torch.tensor([[True, True, False, True]])
    changed = returns.clone()
    changed[:, 2] = 100.0
    assert leave_one_out(changed, keep).equal(leave_one_out(returns, keep))
    assert (leave_one_out(changed, keep)[:, 2] == 0).all()
    assert informative(changed, keep).equal(informative(returns, keep))


@pytest.mark.invariant
def test_marked_duplicates_leave_the_advantages_of_the_others_alone() -> None:
    returns = torch.rand(2, 3, 3, dtype=torch.float64)
    doubled = torch.cat([returns, returns[:, :2]], dim=1)
    keep = torch.tensor([[True, True, True, False, False]] * 2)
    alone = leave_one_out(returns, everyone(returns))
    assert_close(leave_one_out(doubled, keep)[:, :3], alone)


@pytest.mark.invariant
def test_a_constant_added_to_all_rewards_changes_no_advantage() -> None:
    returns = torch.rand(2, 6, 3, dtype=torch.float64)
    keep = everyone(returns)
    assert_close(leave_one_out(returns + 3.0, keep), leave_one_out(returns, keep))


@pytest.mark.invariant
def test_advantages_scale_with_the_rewards() -> None:
    """There is no division by a standard deviation: half the rewards give half the advantages."""
    returns = torch.rand(2, 6, 3, dtype=torch.float64)
    keep = everyone(returns)
    assert_close(leave_one_out(0.01 * returns, keep), 0.01 * leave_one_out(returns, keep))


@pytest.mark.invariant
@pytest.mark.parametrize("advantage", [leave_one_out, z_score])
@pytest.mark.parametrize("reward", [0.0, 0.3, 0.6, 0.9, 1.0, 1.3])
def test_a_constant_group_is_not_informative_and_does_not_push(
    reward: float, advantage: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """In float32, where the mean of equal numbers is not always that number."""
    for size in range(2, 34):
        for weights in (torch.full((3,), 1 / 3), torch.tensor([0.2, 0.3, 0.5])):
            returns = reward_to_go(torch.full((1, size, 3), reward), weights)
            keep = everyone(returns)
            assert not informative(returns, keep).any()
            advantages = advantage(returns, keep)
            assert advantages.abs().max() < 1e-6
            log_probs = torch.zeros(1, size, 3, requires_grad=True)
            loss, _ = losses.grpo(log_probs, log_probs.detach(), advantages, keep, 0.2, 0.28)
            (pushed,) = torch.autograd.grad(loss, log_probs)
            assert pushed.abs().max() < 1e-7


@pytest.mark.invariant
def test_a_z_score_is_the_return_in_standard_deviations_of_what_is_kept() -> None:
    returns = torch.rand(3, 6, 3, dtype=torch.float64)
    keep = torch.tensor([[True] * 6, [True, False] * 3, [True, True] + [False] * 4])
    for row in range(3):
        kept = returns[row, keep[row]]
        expected = (kept - kept.mean(0)) / kept.std(0)
        assert_close(z_score(returns, keep)[row, keep[row]], expected)
    assert (z_score(returns, keep)[~keep] == 0).all()


@pytest.mark.invariant
def test_z_scores_know_neither_the_unit_nor_the_origin_of_the_rewards() -> None:
    returns = torch.rand(2, 6, 3, dtype=torch.float64)
    keep = everyone(returns)
    assert_close(z_score(0.01 * returns + 3.0, keep), z_score(returns, keep))


@pytest.mark.invariant
def test_z_scores_of_a_group_of_one_are_zero() -> None:
    assert z_score(torch.rand(2, 1, 3), torch.ones(2, 1, dtype=torch.bool)).equal(
        torch.zeros(2, 1, 3)
    )
    one_kept = z_score(torch.rand(1, 3, 3), torch.tensor([[False, True, False]]))
    assert one_kept.equal(torch.zeros(1, 3, 3))


def test_statistics_are_those_of_what_is_kept() -> None:
    returns = torch.tensor([[1.0, 0.0, 0.5, 9.0], [0.4, 0.4, 0.4, 0.4]]).unsqueeze(-1)
    keep = torch.tensor([[True, True, True, False], [True, True, False, False]])
    advantages = torch.tensor([[2.0, -2.0, 0.0, 7.0], [5.0, 5.0, 5.0, 5.0]]).unsqueeze(-1)
    assert statistics(returns, advantages, keep) == pytest.approx(
        {
            "reward": (1.0 + 0.0 + 0.5 + 0.4 + 0.4) / 5,
            "reward_std": (0.5 + 0.0) / 2,
            "frac_reward_zero_std": 0.5,
            "advantage_std": 2.0,
            "distinct_share": 5 / 8,
        }
    )


def test_statistics_of_constant_groups_alone_are_finite() -> None:
    returns = torch.full((2, 3, 1), 0.3)
    figures = statistics(returns, torch.zeros(2, 3, 1), everyone(returns))
    assert figures["frac_reward_zero_std"] == 1
    assert figures["advantage_std"] == 0
    assert all(math.isfinite(value) for value in figures.values())


def test_one_different_reward_makes_a_group_informative() -> None:
    returns = torch.full((4, 4), 0.3)
    returns[1, 2] = 0.6
    returns[2:, 3] = torch.tensor([0.9, 0.0])
    keep = torch.ones(4, 4, dtype=torch.bool)
    keep[2:, 3] = False
    assert informative(returns.unsqueeze(-1), keep).tolist() == [False, True, False, False]


@pytest.mark.invariant
def test_a_group_of_one_has_advantage_zero() -> None:
    alone = leave_one_out(torch.rand(2, 1, 3), torch.ones(2, 1, dtype=torch.bool))
    assert alone.equal(torch.zeros(2, 1, 3))
    one_kept = leave_one_out(torch.rand(1, 3, 3), torch.tensor([[False, True, False]]))
    assert one_kept.equal(torch.zeros(1, 3, 3))


@pytest.mark.invariant
def test_a_reward_at_shot_two_alone_trains_no_later_step() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0])
    returns = reward_to_go(torch.rand(3, 8, 3), weights)
    advantages = leave_one_out(returns, everyone(returns))
    assert advantages[..., 2].equal(torch.zeros(3, 8))
    assert advantages[..., 0].equal(advantages[..., 1])
    assert (advantages[..., 1].abs().amax(-1) > 0.1).all()


@pytest.mark.invariant
def test_an_earlier_shot_earns_a_later_step_nothing() -> None:
    weights = torch.full((3,), 1 / 3)
    rewards = torch.rand(2, 6, 3)
    changed = torch.cat([1 - rewards[..., :1], rewards[..., 1:]], dim=-1)
    one, other = (leave_one_out(reward_to_go(r, weights), everyone(r)) for r in (rewards, changed))
    assert one[..., 1:].equal(other[..., 1:])
    assert not one[..., 0].equal(other[..., 0])
