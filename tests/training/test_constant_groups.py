"""Groups whose candidates score alike: dropped they change nothing, kept they teach nothing."""

import math
from dataclasses import replace

import pytest
import torch

from identity_task import IdentityTask
from lever_plus.training.groups import Groups
from lever_plus.training.returns import trained_rows
from training import FEW, GRPO, Train, agro, grpo, rce


def constant(groups: Groups, rows: slice) -> Groups:
    """Give all candidates of some groups the same accuracies, of which float32 has no exact sum."""
    rewards = groups.rewards.clone()
    rewards[rows] = 0.3
    return replace(groups, rewards=rewards)


@pytest.mark.invariant
def test_constant_groups_are_rows_to_train_on_only_where_they_are_kept() -> None:
    returns = torch.tensor([[[0.3], [0.3]], [[0.0], [1.0]], [[0.5], [9.0]]])
    keep = torch.tensor([[True, True], [True, True], [True, False]])
    assert trained_rows(returns, keep, "drop").tolist() == [1]
    assert trained_rows(returns, keep, "keep").tolist() == [0, 1, 2]


@pytest.mark.invariant
@pytest.mark.parametrize("train", [rce, agro, grpo])
def test_constant_groups_do_not_push_the_policy(task: IdentityTask, train: Train) -> None:
    """Training gives the same bits as without them: they are in no sum and in no denominator."""
    params = FEW[train]
    groups = constant(task.groups(size=8), slice(32, None))
    with_them = train(task, task.policy(), params, groups=groups)
    alone = groups.rows(torch.arange(32))
    without = train(task, task.policy(), params, groups=alone)
    assert with_them.weights.equal(without.weights)
    assert with_them.history[-1]["frac_reward_zero_std"] == pytest.approx(16 / 48)
    assert without.history[-1]["frac_reward_zero_std"] == 0


@pytest.mark.invariant
@pytest.mark.parametrize("train", [rce, agro, grpo])
def test_constant_groups_alone_leave_the_policy_as_it_is(task: IdentityTask, train: Train) -> None:
    params = FEW[train]
    before = task.policy()
    outcome = train(task, task.policy(), params, groups=constant(task.groups(size=8), slice(None)))
    for name, weight in before.state_dict().items():
        assert outcome.trained.best().state_dict()[name].equal(weight), name
    assert outcome.history[-1]["frac_reward_zero_std"] == 1


@pytest.mark.invariant
def test_constant_groups_that_are_kept_pull_rce_to_a_uniform_choice_among_them(
    task: IdentityTask,
) -> None:
    """Because all candidates of such a group have equal weights."""
    groups = constant(task.groups(size=8), slice(None))
    history = rce(task, task.policy(), FEW[rce], groups=groups, constant_groups="keep").history
    assert history[-1]["frac_reward_zero_std"] == 1
    assert float(history[2]["loss"]) < float(history[1]["loss"])


@pytest.mark.invariant
@pytest.mark.parametrize("train", [rce, agro])
def test_what_a_constant_group_scores_has_no_effect(task: IdentityTask, train: Train) -> None:
    """Not even in the last digits: training beside groups that teach gives the same bits."""
    groups = constant(task.groups(size=8), slice(32, None))
    rewards = groups.rewards.clone()
    rewards[32:] = 0.0
    one, other = (
        train(task, task.policy(), FEW[train], groups=some, constant_groups="keep").weights
        for some in (groups, replace(groups, rewards=rewards))
    )
    assert one.equal(other)


@pytest.mark.invariant
@pytest.mark.parametrize("train", [rce, agro, grpo])
@pytest.mark.parametrize("advantage", ["leave_one_out", "z_score"])
def test_constant_groups_count_in_the_mean_where_they_are_kept(
    task: IdentityTask, train: Train, advantage: str
) -> None:
    """Nothing divides by their spread: every number of the history stays finite."""
    params, groups = FEW[train], constant(task.groups(size=8), slice(32, None))
    if train is grpo:
        params = params.model_copy(update={"advantage": advantage})
    dropped, kept = (
        train(task, task.policy(), params, groups=groups, constant_groups=what)
        for what in ("drop", "keep")
    )
    assert not kept.weights.equal(dropped.weights)
    assert (dropped.trained.step, kept.trained.step) == (8, 12)
    for row in kept.history:
        assert all(isinstance(v, str) or math.isfinite(v) for v in row.values())


@pytest.mark.invariant
@pytest.mark.parametrize("changes", [{"rounds": 0}, {"rounds": 0, "advantage": "z_score"}], ids=str)
def test_constant_groups_that_are_kept_leave_grpo_to_the_kl_alone(
    task: IdentityTask, changes: dict[str, object]
) -> None:
    params = GRPO.model_copy(update={**changes, "kl_beta": 0.0})
    groups = constant(task.groups(size=8), slice(None))
    outcome = grpo(task, task.policy(), params, groups=groups, constant_groups="keep")
    start = torch.cat([p.detach().flatten() for p in task.policy().parameters()])
    assert outcome.trained.step == 12
    assert outcome.weights.equal(start)
