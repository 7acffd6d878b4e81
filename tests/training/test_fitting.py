"""What the training loops share: schedules, the best epoch, patience, alarms and the history."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from identity_task import POOL, SHOTS, IdentityTask
from torch import Tensor

from lever_plus.config.training import OptimParams
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.gradients import Part
from lever_plus.training.trainer import Fitting, Row, Run, shuffled_batches
from training import (
    AGRO,
    ALL_SHORT,
    OFFLINE,
    OPTIM,
    RCE,
    SFT,
    Train,
    Watch,
    agro,
    grpo,
    rce,
    sft,
    short_sft,
)

SHORT = pytest.mark.parametrize("train", ALL_SHORT)


def fit(task: IdentityTask, policy: Policy, steps: int = 1, **changes: Any) -> Fitting:
    params = OptimParams(**{**OPTIM, **changes}, epochs=1)
    return Fitting(policy, task.environment, params, task.dev, Run(0, Watch()), steps)


def step(fitting: Fitting, loss: Tensor) -> dict[str, float]:
    """Take an optimiser step on a batch of one row."""
    return fitting.update(torch.zeros(1, dtype=torch.long), lambda _rows: Part(loss, {}))


def learning_rates(task: IdentityTask, steps: int, **changes: Any) -> list[float]:
    """Return the size of every step: with a constant gradient, Adam's is the learning rate."""
    policy = task.policy()
    settings = {"learning_rate": 1e-2, "grad_clip": 1e6, **changes}
    fitting = fit(task, policy, steps, **settings)
    weight, sizes = policy.get_parameter("query_in.bias"), []
    for _ in range(steps + 1):
        before = weight.detach().clone()
        step(fitting, weight.sum())
        sizes.append((before - weight).detach().double().mean().item() / 1e-2)
    return sizes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [1.0] * 5),
        ({"schedule": "linear"}, [1.0, 0.75, 0.5, 0.25, 0.0]),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]),
        ({"schedule": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"schedule": "linear", "warmup": 2}, [1 / 3, 2 / 3, 1.0, 0.5, 0.0]),
    ],
    ids=str,
)
def test_the_learning_rate_follows_its_schedule(
    task: IdentityTask, changes: dict[str, Any], expected: list[float]
) -> None:
    assert learning_rates(task, 4, **changes) == pytest.approx(expected, abs=1e-4)


def test_progress_goes_from_zero_to_one_over_the_steps(task: IdentityTask) -> None:
    policy = task.policy()
    fitting, found = fit(task, policy, steps=5), []
    for _ in range(6):
        found.append(fitting.progress)
        step(fitting, policy.get_parameter("query_in.bias").sum())
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_gradient_is_clipped_and_its_norm_before_that_is_reported(task: IdentityTask) -> None:
    policy = task.policy()
    fitting = fit(task, policy, grad_clip=0.5)
    loss = 100 * torch.stack([p.square().sum() for p in policy.parameters()]).sum()
    norm = step(fitting, loss)["grad_norm"]
    clipped = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert norm > 100
    assert clipped.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_batches_of_an_epoch_hold_every_row_once_in_random_order() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (list(shuffled_batches(10, 4, generator)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert torch.cat(first).sort().values.equal(torch.arange(10))
    assert not torch.cat(first).equal(torch.cat(second))
    assert list(shuffled_batches(0, 4, generator)) == []


@pytest.mark.parametrize("train", [sft, rce, agro, grpo])
def test_patience_ends_a_training_that_gets_no_better(task: IdentityTask, train: Train) -> None:
    params: dict[Train, Any] = {sft: SFT, rce: RCE, agro: AGRO, grpo: OFFLINE}
    changes = {"epochs": 10, "learning_rate": 1e-12, "patience": 3}
    stuck = params[train].model_copy(update=changes)
    outcome = train(task, task.policy(), stuck)
    assert [row["epoch"] for row in outcome.history] == [0, 1, 2, 3]
    assert outcome.fitting.best_epoch == 0


def test_patience_counts_from_the_best_evaluation(task: IdentityTask) -> None:
    patient = sft(task, task.policy(), SFT.model_copy(update={"epochs": 40, "patience": 4}))
    last = int(patient.history[-1]["epoch"])
    assert last == patient.fitting.best_epoch + 4 < 40


def test_the_policy_before_training_may_be_the_best(task: IdentityTask) -> None:
    solved = sft(task, task.policy()).fitting.best()
    before = {name: weight.clone() for name, weight in solved.state_dict().items()}
    wrecking = SFT.model_copy(update={"learning_rate": 1.0, "grad_clip": 100.0, "epochs": 1})
    outcome = sft(task, solved, wrecking)
    assert float(outcome.history[-1]["dev_reward"]) < float(outcome.history[0]["dev_reward"])
    assert outcome.fitting.best_epoch == 0
    for name, weight in outcome.fitting.best().state_dict().items():
        assert weight.equal(before[name]), name


def test_the_best_epoch_is_the_first_with_the_highest_dev_reward(task: IdentityTask) -> None:
    outcome = sft(task, task.policy())
    rewards = [float(row["dev_reward"]) for row in outcome.history]
    assert outcome.fitting.best_epoch == rewards.index(max(rewards)) > 0
    assert outcome.fitting.best_reward == max(rewards)


def test_sft_scores_dev_every_so_many_epochs_and_after_the_last(task: IdentityTask) -> None:
    history = sft(task, task.policy(), SFT.model_copy(update={"epochs": 7, "dev_every": 3})).history
    assert [row["epoch"] for row in history if "dev_reward" in row] == [0, 3, 6, 7]
    assert len(history) == 8


@SHORT
def test_every_history_row_is_numbered_and_finite(task: IdentityTask, train: Train) -> None:
    history = train(task, task.policy()).history
    assert [row["epoch"] for row in history] == list(range(len(history)))
    steps = [row["step"] for row in history]
    assert steps == sorted(set(steps))
    values = [value for row in history for key, value in row.items() if key != "alarm"]
    assert all(math.isfinite(value) for value in values if not isinstance(value, str))
    assert not any(isinstance(value, str) for value in values)


@SHORT
def test_a_row_says_how_selections_and_distributions_moved(
    task: IdentityTask, train: Train
) -> None:
    """KL of a pointer is the sum of its steps', entropy the mean; SFT has no start to compare."""
    history = train(task, task.policy()).history
    for row in history:
        numbers = {key: float(value) for key, value in row.items() if key != "alarm"}
        entropies = [numbers[f"entropy_step_{t}"] for t in range(1, SHOTS + 1)]
        assert numbers["entropy"] == pytest.approx(sum(entropies) / SHOTS, rel=1e-5)
        largest = [math.log(POOL - t) for t in range(SHOTS)]
        assert all(0 <= e <= most + 1e-5 for e, most in zip(entropies, largest, strict=True))
        assert (train is short_sft) == ("kl" not in numbers)
        if train is not short_sft:
            kls = [numbers[f"kl_step_{t}"] for t in range(1, SHOTS + 1)]
            assert numbers["kl"] == pytest.approx(sum(kls), rel=1e-5, abs=1e-7)
            assert min(kls) >= -1e-6
            assert (numbers["kl"] > 1e-6) == (row["epoch"] != 0)
    assert history[0]["dev_changed"] == 0


def test_changed_selections_and_distinct_icds_are_counted(task: IdentityTask) -> None:
    environment, start = task.environment, task.policy()
    before = environment.greedy_pointers(start, task.dev)
    outcome = sft(task, task.policy(), SFT.model_copy(update={"epochs": 3}))
    now = environment.greedy_pointers(outcome.fitting.policy, task.dev)
    changed = sum(one != other for one, other in zip(before, now, strict=True))
    assert outcome.history[-1]["dev_changed"] == changed / len(task.dev)
    assert changed > 0
    assert outcome.history[-1]["dev_distinct_icds"] == len({i for pointer in now for i in pointer})
    assert outcome.history[0]["dev_distinct_icds"] == len({i for p in before for i in p})


def test_kl_and_entropy_are_those_along_the_greedy_pointers(task: IdentityTask) -> None:
    outcome = rce(task, task.policy(), RCE.model_copy(update={"epochs": 1}))
    environment, now, start = task.environment, outcome.fitting.policy.eval(), task.policy().eval()
    found = environment.greedy_pointers(now, task.dev)
    pointers = torch.tensor(
        [[environment.pools.positions(q, p)] for q, p in zip(task.dev, found, strict=True)]
    )
    ours, theirs = (
        each.step_log_probs(environment.encode(each, task.dev), pointers)[:, :, :SHOTS].detach()
        for each in (now, start)
    )
    kl, entropy = losses.exact_kl(ours, theirs), losses.entropy(ours)
    row = outcome.history[-1]
    assert row["kl"] == pytest.approx(kl.sum(-1).mean().item(), rel=1e-4)
    assert row["kl_step_2"] == pytest.approx(kl[..., 1].mean().item(), rel=1e-4)
    assert row["entropy_step_3"] == pytest.approx(entropy[..., 2].mean().item(), rel=1e-4)


@pytest.mark.parametrize("train", [sft, rce])
def test_the_loss_of_a_random_pick_is_the_log_of_the_number_of_pointers(
    task: IdentityTask, train: Train
) -> None:
    """Sum of log(K - t): weights of a group sum to one, so it is the same for every group."""
    row = train(task, task.policy()).history[1]
    assert row["uniform_loss"] == pytest.approx(math.log(6 * 5 * 4), rel=1e-5)
    assert float(row["loss"]) < float(row["uniform_loss"]) + 1


def test_dev_accuracy_is_the_mean_over_shots_whatever_they_weigh(task: IdentityTask) -> None:
    reward = task.environment.reward.model_copy(update={"shot_weights": [0.0, 1.0, 3.0]})
    uneven = replace(task, environment=replace(task.environment, reward=reward))
    row = sft(uneven, uneven.policy(seed=2), SFT.model_copy(update={"epochs": 1})).history[0]
    shots = task.environment.realised(task.policy(seed=2), task.dev).accuracies.mean(0)
    assert row["dev_accuracy"] == pytest.approx(shots.mean())
    assert row["dev_reward"] == pytest.approx(shots @ [0.0, 0.25, 0.75])
    assert abs(float(row["dev_reward"]) - float(row["dev_accuracy"])) > 0.01


def test_a_training_that_selects_as_before_raises_an_alarm(
    task: IdentityTask, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = SFT.model_copy(update={"learning_rate": 1e-12, "epochs": 1})
    history = sft(task, task.policy(), stuck).history
    assert "alarm" not in history[0]
    assert history[1]["alarm"] == "every dev selection is what it was before training"
    assert "every dev selection is what it was before training (step 6)" in caplog.text


@pytest.mark.parametrize("dev", [2, 16])
def test_a_policy_that_picks_the_same_for_every_query_raises_an_alarm(
    task: IdentityTask, dev: int
) -> None:
    task = replace(task, dev=task.dev[:dev])
    policy, rows = task.policy(), list[Row]()
    params = OptimParams(**OPTIM, epochs=1)
    fitting = Fitting(policy, task.environment, params, task.dev, Run(0, rows.append), 1)
    with torch.no_grad():
        policy.get_parameter("key.weight").zero_()
    fitting.evaluate(1, {})
    assert rows[1]["alarm"] == "all dev queries get the same selection"


def test_a_training_that_moves_raises_no_alarm(task: IdentityTask) -> None:
    assert not any("alarm" in row for row in sft(task, task.policy()).history)
