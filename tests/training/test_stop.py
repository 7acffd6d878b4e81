"""Learning when to stop: the value of continuing, the loss, and what a price does."""

import math
from itertools import product

import pytest
import torch
from enumeration import numbers
from torch.testing import assert_close

from identity_task import IdentityTask
from lever_plus.config.policy import PointerParams
from lever_plus.training import losses
from lever_plus.training.returns import going_on
from lever_plus.training.stop import train_stop
from lever_plus.training.trainer import Run
from training import GRPO, POINTER, STOP, Watch, solved, stop


@pytest.mark.invariant
def test_going_on_is_worth_the_mean_over_all_later_decisions() -> None:
    odds, values = numbers(2, 3), numbers(2, 4, seed=1)
    chance = torch.sigmoid(odds)
    for s in range(3):
        expected = torch.zeros(2, dtype=torch.float64)
        for decisions in product((True, False), repeat=2 - s):
            weight, end = torch.ones(2, dtype=torch.float64), 3
            for number, stops in enumerate(decisions, start=s + 1):
                weight = weight * (chance[:, number] if stops else 1 - chance[:, number])
                end = min(end, number) if stops else end
            expected = expected + weight * values[:, end]
        assert_close(going_on(odds, values)[:, s], expected)


@pytest.mark.invariant
def test_the_loss_decides_for_the_larger_expected_value() -> None:
    """In one state, stopping is worth +1 in one case of four and -0.2 in the others: stop."""
    values = torch.tensor([[[1.0, 0.0]], [[0.0, 0.2]], [[0.0, 0.2]], [[0.0, 0.2]]]).double()
    odds = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([odds], lr=20.0)
    for _ in range(200):
        optimiser.zero_grad()
        losses.stop(odds.expand(4, 1, 1), values).backward()
        optimiser.step()
    assert torch.sigmoid(odds).item() == pytest.approx(1.0 / 1.6, abs=1e-6)


@pytest.mark.invariant
@pytest.mark.parametrize(("sure", "advantage"), [(-12.0, 1.5), (12.0, -1.5)])
def test_a_wrong_decision_has_a_gradient_however_sure_it_is(sure: float, advantage: float) -> None:
    odds = torch.full((1, 1, 1), sure, requires_grad=True)
    losses.stop(odds, torch.tensor([[[advantage, 0.0]]])).backward()
    assert odds.grad is not None
    assert odds.grad.item() == pytest.approx(-advantage, abs=1e-4)


@pytest.mark.invariant
@pytest.mark.parametrize(("price", "least", "most"), [(0.0, 0, 3), (0.3, 0.9, 1.1), (1.2, 0, 0.1)])
def test_a_policy_shows_what_is_worth_its_price(
    task: IdentityTask, price: float, least: float, most: float
) -> None:
    """Every shot has the same reward, 1: at .3 one is shown, at 1.2 none, at 0 any number."""
    pointer = PointerParams(shots=3, price=price, price_per="demonstration")
    outcome = stop(task, solved(), pointer=pointer)
    best = outcome.history[outcome.trained.best_epoch]
    assert least <= float(best["dev_demonstrations"]) <= most
    assert outcome.trained.best_reward >= max(0.0, 1 - price) - 0.1
    assert float(outcome.history[0]["dev_reward"]) <= outcome.trained.best_reward


def test_tokens_may_be_what_costs(task: IdentityTask) -> None:
    """Every demonstration of the task adds ten tokens: a price per token is ten times as high."""
    start = solved()
    few = STOP.model_copy(update={"prices": [0.0, 0.03, 0.12]})
    each, ten = (
        stop(task, start, params, pointer=PointerParams(shots=3, price=price, price_per=per))
        for params, price, per in ((STOP, 0.3, "demonstration"), (few, 0.03, "token"))
    )
    assert ten.trained.best_reward == pytest.approx(each.trained.best_reward, abs=0.1)
    rows = [one.history[one.trained.best_epoch]["dev_demonstrations"] for one in (each, ten)]
    assert rows[0] == pytest.approx(rows[1], abs=0.15)


def test_the_picks_are_left_alone_until_the_head_has_learned(task: IdentityTask) -> None:
    start = solved()
    alone = stop(task, start, STOP.model_copy(update={"rounds": 0, "weight_decay": 0.0}))
    for name, weight in start.state_dict().items():
        assert alone.trained.policy.state_dict()[name].equal(weight), name
    both = stop(task, start, STOP.model_copy(update={"rounds": 1}))
    moved = [
        not both.trained.policy.state_dict()[name].equal(weight)
        for name, weight in start.state_dict().items()
    ]
    assert any(moved)
    assert math.isfinite(float(both.history[-1]["kl"]))


def test_the_fixed_share_teaches_picks_whatever_the_policy_would_show(task: IdentityTask) -> None:
    """At 1 they learn from nothing else: the probabilities of stopping have no weight left."""
    update = {"passes": 0, "rounds": 1, "epochs": 1, "weight_decay": 0.0, "fixed_share": 1.0}
    params, grpo = STOP.model_copy(update=update), GRPO.model_copy(update={"kl_beta": 0.0})
    start, run = task.policy(), Run(0, Watch())
    environment, queries, dev = task.environment, task.train, task.dev
    trained = train_stop(start, environment, queries, dev, params, grpo, POINTER, run)
    after = trained.policy.state_dict()
    assert any(not after[name].equal(weight) for name, weight in start.state_dict().items())
