"""The choices of GRPO: penalty, its weight, credit, advantages and what is clipped."""

import pytest
import torch

from identity_task import IdentityTask
from training import GRPO, OFFLINE, grpo

SEED_V3 = {"credit": "total", "advantage": "z_score", "ratio": "sequence", "kl": "k3"}
"""The choices of the older system."""


def betas(task: IdentityTask, **changes: object) -> list[float]:
    params = GRPO.model_copy(update=changes)
    history = grpo(task, task.policy(), params).history
    return [float(row["kl_beta"]) for row in history[1:]]


def test_a_kl_under_its_target_lowers_beta_by_half_after_every_epoch(task: IdentityTask) -> None:
    found = betas(task, kl_beta=0.3, kl_target=[50.0, 60.0], rounds=2)
    assert found == pytest.approx([0.3, 0.3 / 1.5, 0.3 / 1.5**2, 0.3 / 1.5**3])


def test_a_kl_over_its_target_raises_beta_by_half_after_every_epoch(task: IdentityTask) -> None:
    found = betas(task, kl_beta=0.3, kl_target=[1e-12, 2e-12], rounds=2)
    assert found == pytest.approx([0.3, 0.3 * 1.5, 0.3 * 1.5**2, 0.3 * 1.5**3])


def test_a_kl_within_its_target_or_without_one_leaves_beta(task: IdentityTask) -> None:
    assert betas(task, kl_beta=0.3, kl_target=[1e-12, 60.0], rounds=2) == [0.3] * 4
    assert betas(task, kl_beta=0.3, rounds=2) == [0.3] * 4


def test_beta_stays_within_its_bounds(task: IdentityTask) -> None:
    assert betas(task, kl_beta=0.0012, kl_target=[50.0, 60.0], rounds=2)[1:] == [0.001] * 3
    assert betas(task, kl_beta=9.0, kl_target=[1e-12, 2e-12], rounds=2)[1:] == [10.0] * 3


@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_the_share_of_the_penalty_is_a_share(task: IdentityTask, kl: str) -> None:
    history = grpo(task, task.policy(), GRPO.model_copy(update={"kl_beta": 0.1, "kl": kl})).history
    shares = [float(row["kl_share"]) for row in history[1:]]
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) > 0.1
    free = grpo(task, task.policy(), GRPO.model_copy(update={"kl_beta": 0.0})).history
    assert all(row["kl_share"] == 0 for row in free[1:])


def test_the_choices_of_the_older_system_learn_too(task: IdentityTask) -> None:
    params = GRPO.model_copy(update={**SEED_V3, "rounds": 10})
    outcome = grpo(task, task.policy(), params)
    assert float(outcome.history[0]["dev_reward"]) < 0.5
    assert outcome.trained.best_reward >= 0.9


@pytest.mark.parametrize("choice", SEED_V3)
def test_every_choice_changes_what_is_learned(task: IdentityTask, choice: str) -> None:
    """Otherwise the choice would be without effect."""
    base = GRPO.model_copy(update={"credit": "total", "rounds": 1, "kl_beta": 0.3})
    other = {**SEED_V3, "credit": "reward_to_go"}[choice]
    one, two = (
        grpo(task, task.policy(), base.model_copy(update={choice: value})).weights
        for value in (getattr(base, choice), other)
    )
    assert not one.equal(two)


def test_z_scores_do_not_know_the_unit_of_the_reward(task: IdentityTask) -> None:
    groups = task.groups(size=8)
    params = OFFLINE.model_copy(update={"advantage": "z_score", "credit": "total", "kl_beta": 0.0})
    half = task.groups(size=8)
    half.rewards.div_(2)
    one, other = (grpo(task, task.policy(), params, groups=g).weights for g in (groups, half))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kl", ["exact", "k3"])
def test_both_penalties_hold_the_policy_at_the_reference(task: IdentityTask, kl: str) -> None:
    loose, tight = (
        grpo(
            task,
            task.policy(),
            OFFLINE.model_copy(update={"epochs": 10, "kl_beta": beta, "kl": kl}),
        ).history[-1]
        for beta in (0.0, 1.0)
    )
    assert float(tight["kl"]) < 0.5 * float(loose["kl"])


def test_rows_name_the_round_and_its_candidates(task: IdentityTask) -> None:
    history = grpo(task, task.policy(), GRPO.model_copy(update={"rounds": 3})).history
    assert [row["round"] for row in history[1:]] == [1, 1, 2, 2, 3, 3]
    shares = [float(row["distinct_share"]) for row in history[1:]]
    assert all(0 < share < 1 for share in shares), "independent draws repeat in a pool of six"
    assert history[1]["reward"] == history[2]["reward"] != history[3]["reward"]
