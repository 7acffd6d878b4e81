"""Training solves a task, gives the same result every time, and uses only the data it may use."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from identity_task import SHOTS, IdentityTask, Kind
from lever_plus.config.reward import RewardParams
from lever_plus.policy.kinds import KINDS
from lever_plus.training.groups import Groups
from training import (
    ALL_SHORT,
    FEW,
    GRPO,
    OFFLINE,
    RCE,
    Train,
    agro,
    dev_reward,
    grpo,
    rce,
    sft,
    sft_beams,
    short_agro,
    short_agro_rounds,
    short_grpo,
    short_offline,
    short_rce,
    short_sft,
    short_sft_beams,
    short_stop,
    solved,
)

LOSSES = pytest.mark.parametrize("train", [sft, sft_beams, rce, agro, grpo])
SHORT = pytest.mark.parametrize("train", ALL_SHORT)
COMPARING = pytest.mark.parametrize(
    "train", [short_agro, short_agro_rounds, short_grpo, short_offline]
)


def rewarded_at_shot_one(task: IdentityTask) -> IdentityTask:
    first = RewardParams(soft=1.0, clip=5.0, shot_weights=[1.0, 0.0, 0.0])
    return replace(task, environment=replace(task.environment, reward=first))


@pytest.mark.invariant
@LOSSES
def test_every_loss_learns_the_identity_task(task: IdentityTask, train: Train) -> None:
    """Measured on queries that it was not trained on."""
    outcome = train(task, task.policy())
    start, end = float(outcome.history[0]["dev_reward"]), outcome.trained.best_reward
    assert start < 0.5
    assert end >= 0.97
    policy = outcome.trained.best()
    found = task.environment.greedy_pointers(policy, task.dev)
    solved = sum(p == task.solution(q) for q, p in zip(task.dev, found, strict=True))
    assert solved >= len(task.dev) - 1
    assert dev_reward(task, policy) == end


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("train", "least"), [(sft, 0.7), (sft_beams, 0.95), (rce, 0.95), (agro, 0.5), (grpo, 0.9)]
)
def test_static_scores_learn_what_the_first_pick_earns(
    task: IdentityTask, train: Train, least: float
) -> None:
    """v2 cannot know the step, so listwise SFT and AGRO's regression have no exact solution."""
    task = rewarded_at_shot_one(task)
    outcome = train(task, task.policy(kind="v2"))
    assert float(outcome.history[0]["dev_reward"]) <= 0.25
    assert outcome.trained.best_reward >= least


@pytest.mark.invariant
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.long] if k != "residual" else []) for k in KINDS],
)
@SHORT
def test_the_same_seed_repeats_weights_and_history_exactly(
    task: IdentityTask, train: Train, kind: Kind
) -> None:
    first, again = (train(task, task.policy(kind=kind), seed=4) for _ in range(2))
    assert first.history == again.history
    assert first.weights.equal(again.weights)
    other = train(task, task.policy(kind=kind), seed=5)
    assert not first.weights.equal(other.weights)


@COMPARING
def test_log_probs_that_are_compared_are_free_of_dropout(task: IdentityTask, train: Train) -> None:
    plain, noisy = (train(task, task.policy(dropout).train()) for dropout in (0.0, 0.9))
    assert plain.history == noisy.history
    assert plain.weights.equal(noisy.weights)


@pytest.mark.parametrize("train", [short_sft, short_sft_beams])
def test_dropout_is_on_in_sft(task: IdentityTask, train: Train) -> None:
    plain, noisy = (train(task, task.policy(dropout)) for dropout in (0.0, 0.5))
    assert not plain.weights.equal(noisy.weights)


def test_rce_has_the_dropout_of_its_own_settings(task: IdentityTask) -> None:
    """Whatever dropout the policy had before. Dev rewards are measured in eval mode."""
    off, on = (RCE.model_copy(update={"epochs": 2, "dropout": rate}) for rate in (0.0, 0.5))
    plain = rce(task, task.policy(), off)
    assert rce(task, task.policy(dropout=0.9).train(), off).weights.equal(plain.weights)
    noisy = rce(task, task.policy(), on)
    assert not noisy.weights.equal(plain.weights)
    assert noisy.history[0] == plain.history[0]
    assert dev_reward(task, noisy.trained.best()) == noisy.trained.best_reward


def test_the_dropout_of_rce_is_that_of_its_seed(task: IdentityTask) -> None:
    """It does not depend on what the process has drawn before."""
    noisy = RCE.model_copy(update={"epochs": 2, "dropout": 0.5})
    one = rce(task, task.policy(), noisy)
    policy = task.policy()
    torch.rand(3)
    assert rce(task, policy, noisy).weights.equal(one.weights)
    alone = task.groups(size=8).rows(torch.tensor([0]))  # one query: the order cannot differ
    first, second = (rce(task, task.policy(), noisy, s, groups=alone).weights for s in (0, 1))
    assert not first.equal(second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train", [short_sft, short_sft_beams, short_rce])
def test_a_training_moves_every_parameter(task: IdentityTask, train: Train, kind: Kind) -> None:
    before, after = task.policy(kind=kind), train(task, task.policy(kind=kind)).trained.policy
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert not new.equal(old), name


@SHORT
def test_rewards_are_asked_for_dev_and_for_fresh_candidates_alone(
    task: IdentityTask, train: Train
) -> None:
    train(task, task.policy())
    fresh = train in (short_grpo, short_agro_rounds, short_stop)
    assert task.scorer.asked == {*task.dev, *(task.train if fresh else ())}


@SHORT
def test_training_on_train_never_sees_dev_but_to_score_it(task: IdentityTask, train: Train) -> None:
    """Other dev queries can only choose another epoch; the weights after the last one are equal."""
    fewer = replace(task, dev=task.dev[:1])
    assert train(task, task.policy()).weights.equal(train(fewer, fewer.policy()).weights)


@pytest.mark.invariant
def test_equal_totals_with_different_steps_still_teach(task: IdentityTask) -> None:
    """Totals are equal, but rewards-to-go differ at step 2: dropping such groups adds bias."""
    groups = task.groups(size=2)
    rewards = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(len(task.train), -1, -1)
    outcome = grpo(task, task.policy(), OFFLINE, groups=replace(groups, rewards=rewards))
    start = torch.cat([p.detach().flatten() for p in task.policy().parameters()])
    assert not outcome.weights.equal(start)


@pytest.mark.invariant
def test_repeats_in_the_rl_data_do_not_push_twice(task: IdentityTask) -> None:
    groups = task.groups(size=8)
    doubled = Groups(
        queries=groups.queries,
        pointers=torch.cat([groups.pointers, groups.pointers[:, :3]], dim=1),
        rewards=torch.cat([groups.rewards, groups.rewards[:, :3]], dim=1),
        keep=torch.cat([groups.keep, ~groups.keep[:, :3]], dim=1),
    )
    for train in (rce, agro, grpo):
        once = train(task, task.policy(), FEW[train], groups=groups)
        twice = train(task, task.policy(), FEW[train], groups=doubled)
        assert_close(once.weights, twice.weights, rtol=0, atol=1e-4)


def test_advantages_are_not_divided_by_a_standard_deviation(task: IdentityTask) -> None:
    groups = task.groups(size=8)
    half = replace(groups, rewards=groups.rewards / 2)
    rows = [grpo(task, task.policy(), OFFLINE, groups=g).history[1] for g in (groups, half)]
    assert rows[1]["advantage_std"] == pytest.approx(float(rows[0]["advantage_std"]) / 2)


def test_the_first_step_of_grpo_starts_at_the_reference(task: IdentityTask) -> None:
    """Ratio 1 and KL 0 before the first update; both change afterwards."""
    one_step = OFFLINE.model_copy(update={"epochs": 1, "batch_size": 48})
    start, first = grpo(task, task.policy(), one_step).history
    assert start["kl"] == 0
    assert abs(float(first["kl_penalty"])) < 1e-6
    assert abs(float(first["surrogate"])) < 1e-6
    assert first["clip_ratio"] == 0
    assert float(first["grad_norm"]) > 1e-3
    many = grpo(task, task.policy(), one_step.model_copy(update={"epochs": 10})).history[-1]
    assert float(many["kl_penalty"]) > 1e-3
    assert float(many["kl"]) > 1e-3


def test_kl_beta_holds_the_policy_at_the_reference(task: IdentityTask) -> None:
    loose, tight = (
        grpo(task, task.policy(), OFFLINE.model_copy(update={"epochs": 10, "kl_beta": beta}))
        for beta in (0.0, 1.0)
    )
    assert float(tight.history[-1]["kl"]) < 0.5 * float(loose.history[-1]["kl"])


def test_grpo_keeps_a_frozen_reference_of_its_start(task: IdentityTask) -> None:
    """The KL keeps growing over the rounds, because the reference does not follow."""
    outcome = grpo(task, task.policy(), GRPO.model_copy(update={"kl_beta": 0.0}))
    kls = [float(row["kl"]) for row in outcome.history[1:]]
    assert kls[-1] > 2 * kls[2] > 0


def test_tau_falls_from_start_to_end_over_the_optimiser_steps(task: IdentityTask) -> None:
    params = RCE.model_copy(update={"epochs": 5, "batch_size": 48})
    rows = rce(task, task.policy(), params).history[1:]
    assert [row["tau"] for row in rows] == pytest.approx([0.3, 0.25, 0.2, 0.15, 0.1])


def test_a_reward_at_shot_one_alone_leaves_later_picks_untrained(task: IdentityTask) -> None:
    """Shot weights reach the loss: what is not rewarded is not learned."""
    only_first = rewarded_at_shot_one(task)
    outcome = grpo(only_first, only_first.policy(), GRPO.model_copy(update={"rounds": 5}))
    accuracies = task.environment.realised(outcome.trained.best(), task.dev).accuracies.mean(0)
    assert accuracies[0] >= 0.9
    assert accuracies[1:].max() <= 0.6


def test_a_shorter_greedy_pointer_may_be_asked_for(task: IdentityTask) -> None:
    policy = solved()
    long = task.environment.greedy_pointers(policy, task.dev)
    short = task.environment.greedy_pointers(policy, task.dev, shots=SHOTS - 1)
    assert short == [pointer[:-1] for pointer in long]
