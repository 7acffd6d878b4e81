"""What the loops of all losses share: the best epoch, patience and the history."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from identity_task import IdentityTask
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.state import read_state, save_state
from training import (
    AGRO,
    ALL_SHORT,
    OFFLINE,
    RCE,
    SFT,
    Train,
    agro,
    grpo,
    rce,
    sft,
    sft_beams,
    solved,
)


def test_patience_ends_an_sft_that_gets_no_better(task: IdentityTask) -> None:
    stuck = SFT.model_copy(update={"epochs": 10, "learning_rate": 1e-12, "patience": 3})
    outcome = sft(task, task.policy(), stuck)
    assert [row["epoch"] for row in outcome.history] == [0, 1, 2, 3]
    assert outcome.trained.best_epoch == 0


@pytest.mark.parametrize("train", [rce, agro, grpo])
def test_nothing_ends_rl_before_its_last_epoch(task: IdentityTask, train: Train) -> None:
    """A schedule that is cut short would not be the one that was asked for."""
    params: dict[Train, Any] = {rce: RCE, agro: AGRO, grpo: OFFLINE}
    stuck = params[train].model_copy(update={"epochs": 8, "learning_rate": 1e-12})
    history = train(task, task.policy(), stuck).history
    assert [row["epoch"] for row in history] == list(range(9))
    if train is rce:
        assert history[-1]["tau"] == pytest.approx(0.1, abs=0.02)


def test_patience_counts_from_the_best_evaluation(task: IdentityTask) -> None:
    patient = sft(task, task.policy(), SFT.model_copy(update={"epochs": 40, "patience": 4}))
    last = int(patient.history[-1]["epoch"])
    assert last == patient.trained.best_epoch + 4 < 40


def test_the_policy_before_training_may_be_the_best(task: IdentityTask) -> None:
    start = solved()
    before = {name: weight.clone() for name, weight in start.state_dict().items()}
    wrecking = SFT.model_copy(update={"learning_rate": 1.0, "grad_clip": 100.0, "epochs": 1})
    outcome = sft(task, start, wrecking)
    assert float(outcome.history[-1]["dev_reward"]) < float(outcome.history[0]["dev_reward"])
    assert outcome.trained.best_epoch == 0
    for name, weight in outcome.trained.best().state_dict().items():
        assert weight.equal(before[name]), name


def test_the_best_epoch_is_the_first_with_the_highest_dev_reward(task: IdentityTask) -> None:
    outcome = sft(task, task.policy())
    rewards = [float(row["dev_reward"]) for row in outcome.history]
    assert outcome.trained.best_epoch == rewards.index(max(rewards)) > 0
    assert outcome.trained.best_reward == max(rewards)


def test_sft_scores_dev_every_so_many_epochs_and_after_the_last(task: IdentityTask) -> None:
    history = sft(task, task.policy(), SFT.model_copy(update={"epochs": 7, "dev_every": 3})).history
    assert [row["epoch"] for row in history if "dev_reward" in row] == [0, 3, 6, 7]
    assert len(history) == 8


@pytest.mark.parametrize("train", ALL_SHORT)
def test_every_history_row_is_numbered_and_finite(task: IdentityTask, train: Train) -> None:
    history = train(task, task.policy()).history
    assert [row["epoch"] for row in history] == list(range(len(history)))
    steps = [row["step"] for row in history]
    assert steps == sorted(set(steps))
    values = [value for row in history for key, value in row.items() if key != "alarm"]
    assert all(math.isfinite(value) for value in values if not isinstance(value, str))
    assert not any(isinstance(value, str) for value in values)


@pytest.mark.parametrize("train", [sft, sft_beams, rce])
def test_the_loss_of_a_random_pick_is_the_log_of_the_number_of_pointers(
    task: IdentityTask, train: Train
) -> None:
    """It is the sum of log(K - t), the same for every group, whose weights sum to one."""
    row = train(task, task.policy()).history[1]
    assert row["uniform_loss"] == pytest.approx(math.log(6 * 5 * 4), rel=1e-5)
    assert float(row["loss"]) < float(row["uniform_loss"]) + 1


def test_a_best_checkpoint_keeps_the_first_of_equals_and_counts_what_is_no_better(
    task: IdentityTask, tmp_path: Path
) -> None:
    best, policies = BestCheckpoint(patience=2), [task.policy(seed=seed) for seed in range(5)]
    for epoch, reward in enumerate([0.1, 0.3, 0.3]):
        best.offer(policies[epoch], epoch, reward)
    assert (best.epoch, best.reward, best.exhausted) == (1, 0.3, False)
    save_state(tmp_path / "state", best.state_dict())
    resumed, state = BestCheckpoint(patience=2), read_state(tmp_path / "state")
    assert state is not None
    resumed.load_state_dict(state)
    with torch.no_grad():
        policies[1].get_parameter("key.weight").zero_()  # what is kept is a copy
    for checkpoint in (best, resumed):
        checkpoint.offer(policies[3], 3, 0.2)
        assert (checkpoint.epoch, checkpoint.reward, checkpoint.exhausted) == (1, 0.3, True)
        for name, weight in task.policy(seed=1).state_dict().items():
            assert checkpoint.weights[name].equal(weight), name
        checkpoint.offer(policies[4], 4, 0.4)
        assert (checkpoint.epoch, checkpoint.exhausted) == (4, False)


def test_without_patience_a_training_is_never_exhausted(task: IdentityTask) -> None:
    best = BestCheckpoint(patience=None)
    for epoch in range(50):
        best.offer(task.policy(), epoch, -float(epoch))
    assert not best.exhausted
    assert best.epoch == 0
