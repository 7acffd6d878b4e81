"""The stop head: what its decisions mean, and that it changes no pick."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lever_plus.policy.decoding import NOTHING, greedy, until_stop
from lever_plus.policy.kinds import build_policy, with_stop
from lever_plus.policy.network import Encoded, Policy, PolicyConfig
from lever_plus.policy.stop import shown, stop_probabilities
from tiny_world import random_policy

HIGHEST = 0.2


@pytest.fixture
def stopping(config: PolicyConfig) -> Policy:
    """Return a random policy with a random stop head."""
    return random_policy(replace(config, highest_price=HIGHEST))


def log_odds(policy: Policy, encoded: Encoded, pointers: Tensor, price: float) -> Tensor:
    log_probs = policy.steps(encoded, pointers).joined()
    prices = torch.full((len(pointers),), price, dtype=torch.float64)
    return policy.stop_log_odds(encoded, pointers, log_probs, prices)


@pytest.mark.invariant
def test_the_numbers_of_demonstrations_have_the_probabilities_of_the_decisions() -> None:
    odds = torch.randn(3, 2, 4, dtype=torch.float64)
    stop, found = torch.sigmoid(odds), stop_probabilities(odds)
    assert_close(found.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    assert_close(found[..., 0], stop[..., 0])
    third = (1 - stop[..., 0]) * (1 - stop[..., 1]) * stop[..., 2]
    assert_close(found[..., 2], third)
    assert_close(found[..., 4], (1 - stop).prod(-1))


def test_as_many_are_shown_as_before_the_first_stop() -> None:
    odds = torch.tensor([[1.0, -1, -1], [-1, 2, 3], [-1, -1, 0.1], [-1, -1, -1], [-1, -1, 0]])
    assert shown(odds).tolist() == [0, 1, 2, 3, 3]


@pytest.mark.invariant
def test_a_new_head_changes_no_pick_and_is_undecided(
    policy: Policy, features: tuple[Tensor, Tensor], every: Tensor
) -> None:
    queries, pools = (part.float() for part in features)
    other, policy = with_stop(policy.float(), HIGHEST), policy.float()
    encoded, before = (each.encode(queries, pools) for each in (other, policy))
    assert other.log_probs(encoded, every).equal(policy.log_probs(before, every))
    log_probs = other.steps(encoded, every).joined()
    assert (other.stop_log_odds(encoded, every, log_probs, torch.full((4,), 0.1)) == 0).all()
    with pytest.raises(ValueError, match="a stop head already"):
        with_stop(other, HIGHEST)


@pytest.mark.invariant
def test_a_decision_depends_on_nothing_that_comes_after_it(
    stopping: Policy, features: tuple[Tensor, Tensor], every: Tensor
) -> None:
    encoded = stopping.encode(*features)
    odds = log_odds(stopping, encoded, every, 0.1)
    for steps in (0, 1, 2):
        same = (every[0, :, None, :steps] == every[0, None, :, :steps]).all(-1)
        for one, other in same.nonzero().tolist():
            assert_close(odds[:, one, steps], odds[:, other, steps], rtol=0, atol=1e-12)
    assert odds[0, :, 2].unique().numel() > 10  # and on what came before


@pytest.mark.invariant
def test_a_decision_sees_the_query_and_the_price(
    stopping: Policy, features: tuple[Tensor, Tensor], every: Tensor
) -> None:
    encoded = stopping.encode(*features)
    odds = [log_odds(stopping, encoded, every, price) for price in (0.0, 0.01, 0.05, 0.2)]
    assert all((one - other).abs().min() > 1e-4 for one, other in pairwise(odds))
    moved = encoded._replace(features=encoded.features + 1)
    assert (log_odds(stopping, moved, every, 0.0) - odds[0]).abs().min() > 1e-4


@pytest.mark.invariant
def test_greedy_pointers_end_where_the_head_stops(
    stopping: Policy, features: tuple[Tensor, Tensor]
) -> None:
    encoded = stopping.encode(*features)
    whole = greedy(stopping, encoded, 3)
    found = until_stop(stopping, encoded, whole, 0.05).pointers
    counts = shown(log_odds(stopping, encoded, whole.pointers, 0.05))
    for row, full, count in zip(found[:, 0], whole.pointers[:, 0], counts[:, 0], strict=True):
        assert row.tolist() == full[: int(count)].tolist() + [NOTHING] * (3 - int(count))


def test_a_policy_without_a_head_does_not_stop(policy: Policy, encoded: Encoded) -> None:
    with pytest.raises(ValueError, match="does not decide when to stop"):
        log_odds(policy, encoded, torch.zeros(4, 1, 3, dtype=torch.long), 0.0)
    assert build_policy(policy.config).stop is None
