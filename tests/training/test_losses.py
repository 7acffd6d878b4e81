"""SFT, RCE and GRPO compared with enumeration, their definitions, and truth tables."""

import math

import pytest
import torch
from enumeration import everyone, gradient, numbers
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.network import Encoded, Policy
from lever_plus.training import losses
from lever_plus.training.returns import Credit, leave_one_out, mean_to_go, reward_to_go, total

ALL = torch.ones(2, 4, dtype=torch.bool)


def test_sft_is_the_weighted_negative_log_likelihood() -> None:
    log_probs, weights = numbers(2, 4, 3), numbers(2, 4, seed=1).softmax(-1)
    expected = -sum(
        weights[b, g] * log_probs[b, g, t] for b in range(2) for g in range(4) for t in range(3)
    )
    assert_close(losses.sft(log_probs, weights), torch.as_tensor(expected / 2))


def test_listwise_is_the_cross_entropy_with_the_scores_at_every_prefix() -> None:
    """By hand: a query with two prefixes; -inf marks what is picked already, or padding."""
    log_probs = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.875, 0.0]]]).log().requires_grad_()
    weights = torch.tensor([[[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]])
    expected = -(math.log(0.25) + 0.5 * math.log(0.125) + 0.5 * math.log(0.875)) / 2
    loss = losses.listwise(log_probs, weights)
    assert loss.item() == pytest.approx(expected)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert_close(actual, -weights / 2)
    twice = losses.listwise(log_probs.expand(3, -1, -1), weights.expand(3, -1, -1))
    assert twice.item() == pytest.approx(expected)


def test_rce_weighs_every_step_by_the_softmax_of_its_return_over_tau() -> None:
    log_probs = torch.tensor([[[-1.0, -2.0], [-3.0, -4.0]]])
    returns = torch.tensor([[[0.5 * math.log(3), 0.0], [0.0, 0.0]]])
    expected = torch.tensor(0.75 * 1.0 + 0.25 * 3.0 + 0.5 * 2.0 + 0.5 * 4.0)
    assert_close(losses.rce(log_probs, returns, ALL[:1, :2], tau=0.5), expected)


def test_rce_of_equal_returns_at_all_steps_weighs_whole_pointers() -> None:
    log_probs, totals = numbers(2, 4, 3), numbers(2, 4, 1, seed=1)
    weights = (totals[..., 0] / 0.5).softmax(-1)
    found = losses.rce(log_probs, totals.expand(-1, -1, 3), ALL, tau=0.5)
    assert_close(found, losses.sft(log_probs, weights))


def test_rce_with_a_tiny_tau_imitates_the_best_candidate_alone() -> None:
    log_probs, returns = numbers(2, 4, 3), torch.tensor([[0.1, 0.9, 0.3, 0.2]] * 2).double()
    best = -log_probs[:, 1].sum(-1).mean()
    returns = returns.unsqueeze(-1).expand(-1, -1, 3)
    assert_close(losses.rce(log_probs, returns, ALL, tau=1e-3), best)


@pytest.mark.invariant
def test_rce_rests_at_what_filled_the_list_times_exp_of_the_reward_over_tau(
    rewards: Tensor,
) -> None:
    """A pointer that is n times in the list has mu proportional to n."""
    returns, tau = rewards[0].mean(-1), 0.4
    mu = (torch.arange(60) * 7 % 4 + 1).double()
    members = torch.arange(60).repeat_interleave(mu.long())
    keep = torch.ones(1, len(members), dtype=torch.bool)

    def loss(log_pi: Tensor) -> Tensor:
        listed = log_pi.log_softmax(-1)[members].view(1, -1, 1)
        return losses.rce(listed, returns[members].view(1, -1, 1), keep, tau)

    rest = (mu.log() + returns / tau).requires_grad_()
    assert torch.autograd.grad(loss(rest), rest)[0].abs().max() < 1e-12
    for seed in range(5):
        assert loss(rest + 0.1 * numbers(60, seed=seed)) > loss(rest) + 1e-4


@pytest.mark.invariant
@pytest.mark.parametrize("credit", [mean_to_go, total])
def test_rce_with_steps_rests_where_each_copies_the_list_tilted_by_what_follows(
    every: Tensor, rewards: Tensor, credit: Credit
) -> None:
    """pi_t(i | p) is proportional to the sum of exp(R_t / tau) over the list's p, i, ...

    Over free logits of every prefix. At the last step that is mu exp(R_T / tau), whatever earlier
    shots gave.
    """
    shot_weights, tau = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), 0.4
    members = torch.arange(60).repeat_interleave(torch.arange(60) * 7 % 4 + 1)
    pointers, returns = every[0, members], credit(rewards[0, members], shot_weights)
    picks = pointers.unbind(-1)
    sums = [torch.zeros([5] * step, dtype=torch.float64) for step in (1, 2, 3)]
    for step, table in enumerate(sums):
        table.index_put_(picks[: step + 1], (returns[:, step] / tau).exp(), accumulate=True)

    def loss(tables: list[Tensor]) -> Tensor:
        steps = [t.log_softmax(-1)[picks[: t.ndim]] for t in tables]
        log_probs = torch.stack(steps, dim=-1).unsqueeze(0)
        return losses.rce(log_probs, returns.unsqueeze(0), everyone(log_probs), tau)

    rest = [table.log().requires_grad_() for table in sums]
    assert max(g.abs().max() for g in torch.autograd.grad(loss(rest), rest)) < 1e-12
    for seed in range(5):
        moved = [table + 0.1 * numbers(*table.shape, seed=seed) for table in rest]
        assert loss(moved) > loss(rest) + 1e-4


@pytest.mark.invariant
def test_marked_duplicates_change_no_loss() -> None:
    log_probs, returns, advantages = numbers(2, 4, 3), numbers(2, 4, 3, seed=1), numbers(2, 4, 3)
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


@pytest.mark.invariant
def test_at_ratio_one_the_surrogate_of_centred_advantages_is_zero() -> None:
    log_probs, keep = numbers(3, 6, 3), torch.rand(3, 6) < 0.8
    advantages = leave_one_out(numbers(3, 6, 3, seed=1), keep)
    loss, _ = losses.grpo(log_probs, log_probs, advantages, keep, 0.2, 0.28)
    assert abs(loss.item()) < 1e-12


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("steps", "advantage", "moves"),
    [
        ((1.1, 1.1, 1.0), +1.0, True),
        ((1.2, 1.2, 1.0), +1.0, False),
        ((1.5, 0.8, 1.0), +1.0, True),
        ((0.8, 0.8, 1.0), -1.0, False),
        ((1.5, 0.5, 1.2), -1.0, True),
        ((1.5, 1.5, 1.5), -1.0, True),
        ((0.5, 0.5, 0.5), +1.0, True),
    ],
)
def test_a_sequence_ratio_is_the_product_of_the_steps_and_clipped_as_one(
    steps: tuple[float, ...], advantage: float, moves: bool
) -> None:
    log_probs = torch.tensor([[steps]], dtype=torch.float64).log().requires_grad_()
    old, kept = torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    whole = log_probs.sum(-1, keepdim=True)
    loss, clipped = losses.grpo(whole, old, torch.full_like(whole, advantage), kept, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    expected = -math.prod(steps) * advantage if moves else 0.0
    assert actual[0, 0].tolist() == pytest.approx([expected] * 3)
    assert clipped.item() == float(not moves)


@pytest.mark.invariant
def test_at_ratio_one_a_sequence_ratio_has_the_reinforce_gradient() -> None:
    log_probs, advantages = numbers(2, 4, 3).requires_grad_(), numbers(2, 4, 1, seed=1)
    whole = log_probs.sum(-1, keepdim=True)
    loss, clipped = losses.grpo(whole, whole.detach(), advantages, ALL, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert_close(actual, (-advantages / 8).expand(-1, -1, 3))
    assert clipped == 0


@pytest.mark.invariant
def test_a_reward_at_shot_two_alone_gives_step_three_exactly_no_gradient(
    policy: Policy, encoded: Encoded, every: Tensor, rewards: Tensor
) -> None:
    log_probs = policy.log_probs(encoded, every).detach().requires_grad_()
    weights, keep = torch.tensor([0.0, 1.0, 0.0]).double(), torch.ones(1, 60, dtype=torch.bool)
    advantages = leave_one_out(reward_to_go(rewards, weights), keep)
    loss, _ = losses.grpo(log_probs, log_probs.detach(), advantages, keep, 0.2, 0.28)
    (actual,) = torch.autograd.grad(loss, log_probs)
    assert (actual[..., 2] == 0).all()
    assert (actual[..., :2].abs() > 1e-6).any(1).all()


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
def test_a_batch_has_the_mean_gradient_of_its_groups_alone(policy: Policy) -> None:
    """Micro-batches: every query has the same weight, whatever else is in its batch."""
    queries, pools = numbers(8, 4, seed=2), numbers(8, 5, 6, seed=3)
    pointers = torch.rand(8, 6, 5).argsort(-1)[..., :3]
    old, reference = numbers(8, 6, 3, seed=4) - 1, 3 * numbers(8, 6, 3, seed=5)
    returns, scores = numbers(8, 6, 3, seed=6), numbers(8, 6, 5, seed=7)
    keep = torch.arange(6) < torch.tensor([[6], [5], [4], [3], [2], [6], [3], [1]])

    def each(rows: slice) -> dict[str, Tensor]:
        encoded = policy.encode(queries[rows], pools[rows])
        steps = policy.step_log_probs(encoded, pointers[rows])
        log_probs = policy.log_probs(encoded, pointers[rows])
        uniform = steps.detach().mul(0.5).log_softmax(-1)
        whole, kept = returns[rows, :, 0], keep[rows]
        advantages = leave_one_out(returns[rows], kept)
        near = log_probs.detach() + 0.2 * old[rows]
        return {
            "sft": losses.sft(log_probs, whole.softmax(-1)),
            "listwise": losses.listwise(steps[:, :, 0], scores[rows].softmax(-1)),
            "rce": losses.rce(log_probs, returns[rows], kept, 0.5),
            "agro": losses.agro(log_probs - reference[rows], returns[rows], kept, 0.3),
            "grpo": losses.grpo(log_probs, near, advantages, kept, 0.2, 0.28)[0],
            "kl": losses.group_mean(losses.exact_kl(steps, uniform).sum(-1), kept),
        }

    together, alone = each(slice(None)), [each(slice(i, i + 1)) for i in range(8)]
    for name, loss in together.items():
        mean = torch.stack([gradient(parts[name], policy) for parts in alone]).mean(0)
        assert mean.norm() > 1e-3, name
        assert_close(gradient(loss, policy), mean, rtol=0, atol=1e-12, msg=name)
