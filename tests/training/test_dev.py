"""What a history row says about dev: reward, moved selections and distributions, alarms."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from identity_task import POOL, SHOTS, IdentityTask
from lever_plus.training import losses
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.state import read_state, save_state
from training import ALL_SHORT, RCE, SFT, Train, rce, sft, short_sft, short_sft_beams


@pytest.mark.parametrize("train", ALL_SHORT)
def test_a_row_says_how_selections_and_distributions_moved(
    task: IdentityTask, train: Train
) -> None:
    """A pointer's KL is the sum over its steps, its entropy the mean; SFT has no KL."""
    history = train(task, task.policy()).history
    for row in history:
        numbers = {key: float(value) for key, value in row.items() if key != "alarm"}
        entropies = [numbers[f"entropy_step_{t}"] for t in range(1, SHOTS + 1)]
        assert numbers["entropy"] == pytest.approx(sum(entropies) / SHOTS, rel=1e-5)
        largest = [math.log(POOL - t) for t in range(SHOTS)]
        assert all(0 <= e <= most + 1e-5 for e, most in zip(entropies, largest, strict=True))
        assert (train in (short_sft, short_sft_beams)) == ("kl" not in numbers)
        if train not in (short_sft, short_sft_beams):
            kls = [numbers[f"kl_step_{t}"] for t in range(1, SHOTS + 1)]
            assert numbers["kl"] == pytest.approx(sum(kls), rel=1e-5, abs=1e-7)
            assert min(kls) >= -1e-6
            assert (numbers["kl"] > 1e-6) == (row["epoch"] != 0)
    assert history[0]["dev_changed"] == 0


def test_changed_selections_and_distinct_icds_are_counted(task: IdentityTask) -> None:
    environment, start = task.environment, task.policy()
    before = environment.greedy_pointers(start, task.dev)
    outcome = sft(task, task.policy(), SFT.model_copy(update={"epochs": 3}))
    now = environment.greedy_pointers(outcome.trained.policy, task.dev)
    changed = sum(one != other for one, other in zip(before, now, strict=True))
    assert outcome.history[-1]["dev_changed"] == changed / len(task.dev)
    assert changed > 0
    assert outcome.history[-1]["dev_distinct_icds"] == len({i for pointer in now for i in pointer})
    assert outcome.history[0]["dev_distinct_icds"] == len({i for p in before for i in p})


def test_kl_and_entropy_are_those_along_the_greedy_pointers(task: IdentityTask) -> None:
    outcome = rce(task, task.policy(), RCE.model_copy(update={"epochs": 1}))
    environment, now, start = task.environment, outcome.trained.policy.eval(), task.policy().eval()
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
    policy = task.policy()
    evaluator = DevEvaluator(task.environment, task.dev[:dev], None)
    evaluator.evaluate(policy)
    with torch.no_grad():
        policy.get_parameter("key.weight").zero_()
    assert evaluator.evaluate(policy)["alarm"] == "all dev queries get the same selection"


def test_a_training_that_moves_raises_no_alarm(task: IdentityTask) -> None:
    assert not any("alarm" in row for row in sft(task, task.policy()).history)


def test_an_evaluator_goes_on_comparing_with_the_selections_before_training(
    task: IdentityTask, tmp_path: Path
) -> None:
    first, second = (DevEvaluator(task.environment, task.dev, None) for _ in range(2))
    first.evaluate(task.policy())
    save_state(tmp_path / "state", first.state_dict())
    state = read_state(tmp_path / "state")
    assert state is not None
    second.load_state_dict(state)
    moved = task.policy(seed=1)
    assert second.evaluate(moved) == first.evaluate(moved)
    assert float(first.evaluate(moved)["dev_changed"]) > 0
    assert "alarm" in second.evaluate(task.policy())
