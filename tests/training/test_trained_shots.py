"""Picks after the last shot that has a weight are not trained; credit is as the settings say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch import Tensor

from identity_task import SHOTS, IdentityTask, Kind
from lever_plus.config.reward import RewardParams
from lever_plus.policy.kinds import KINDS
from lever_plus.training import losses
from lever_plus.training.groups import Groups, groups_from_records
from lever_plus.training.returns import mean_to_go, reward_to_go, total
from lever_plus.training.rl_data.records import Candidate, QueryRecord, Shot
from training import AGRO, GRPO, OFFLINE, RCE, Train, agro, grpo, rce

CREDITS: Final = ("reward_to_go", "total")
FEW: Final[dict[str, tuple[Train, Any]]] = {
    "rce": (rce, RCE.model_copy(update={"epochs": 2, "dropout": 0.3})),
    "agro": (agro, AGRO.model_copy(update={"epochs": 1})),
    "agro in rounds": (agro, AGRO.model_copy(update={"epochs": 1, "rounds": 1})),
    "grpo": (grpo, GRPO.model_copy(update={"rounds": 2})),
    "grpo offline": (grpo, OFFLINE),
}
CASES = pytest.mark.parametrize("case", FEW)
CREDIT = pytest.mark.parametrize("credit", CREDITS)


def rewarded(task: IdentityTask, weights: Sequence[float]) -> IdentityTask:
    """Return the task with pointers as long as the weights."""
    reward = RewardParams(soft=1.0, clip=5.0, shot_weights=list(weights))
    environment = replace(task.environment, reward=reward, shots=len(weights))
    return replace(task, environment=environment)


def records(task: IdentityTask, shots: int) -> list[QueryRecord]:
    """Return RL data of the first picks of the same random pointers; many begin alike."""
    environment, drawn = task.environment, task.groups(size=10)
    found = []
    for query, ids in zip(
        task.train, environment.example_ids(task.train, drawn.pointers), strict=True
    ):
        pointers = [pointer[:shots] for pointer in ids]
        accuracies = task.scorer.rewards(ids)[:, :shots].tolist()
        candidates = tuple(
            Candidate(
                pointer=pointer,
                gen_method="random",
                temperature=None,
                step_log_probs=None,
                shots=tuple(
                    Shot(shot=k, answer="", vqa_correct=int(s), vqa_acc_score=s, fallback=False)
                    for k, s in enumerate(given, start=1)
                ),
            )
            for pointer, given in zip(pointers, accuracies, strict=True)
        )
        pool = environment.pools.of(query)
        found.append(
            QueryRecord(query_id=query, question_id=query, pool=pool, candidates=candidates)
        )
    return found


def groups(task: IdentityTask, shots: int) -> Groups:
    reward = task.environment.reward
    assert reward is not None
    return groups_from_records(records(make_whole(task), shots), task.environment.pools, reward)


def make_whole(task: IdentityTask) -> IdentityTask:
    """Return the task with a weight at every shot, so that its groups are not cut."""
    return rewarded(task, [1.0] * SHOTS)


@pytest.mark.parametrize(
    ("weights", "trained"),
    [
        ([0.0, 1.0, 0.0], (0.0, 1.0)),
        ([3.0, 0.0, 1.0], (0.75, 0.0, 0.25)),
        ([2.0, 0.0, 0.0], (1.0,)),
    ],
)
def test_the_trained_weights_end_with_the_last_that_is_not_zero(
    task: IdentityTask, weights: list[float], trained: tuple[float, ...]
) -> None:
    environment = rewarded(task, weights).environment
    assert environment.trained_weights == trained
    assert len(environment.shot_weights) == SHOTS


@pytest.mark.invariant
def test_pointers_that_coincide_after_the_cut_are_kept_once(task: IdentityTask) -> None:
    cut = groups(rewarded(task, [0.0, 1.0, 0.0]), SHOTS)
    whole = groups(make_whole(task), SHOTS)
    assert cut.pointers.equal(whole.pointers[..., :2])
    assert cut.rewards.equal(whole.rewards[..., :2])
    for pointers, kept in zip(cut.pointers.tolist(), cut.keep.tolist(), strict=True):
        picked = [tuple(p) for p, keep in zip(pointers, kept, strict=True) if keep]
        assert len(picked) == len(set(picked)) == len({tuple(p) for p in pointers})
    assert cut.keep.sum() < whole.keep.sum()


@pytest.mark.invariant
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.long] if k != "residual" else []) for k in KINDS],
)
@CREDIT
@CASES
def test_weights_of_zero_at_the_end_train_bit_for_bit_as_shorter_pointers(
    task: IdentityTask, case: str, credit: str, kind: Kind
) -> None:
    train, params = FEW[case]
    params = params.model_copy(update={"credit": credit})
    outcomes = []
    for weights in ([0.0, 1.0, 0.0], [0.0, 1.0]):
        some = rewarded(task, weights)
        given = groups(some, len(weights))
        outcomes.append(train(some, task.policy(kind=kind), params, groups=given))
    one, other = outcomes
    assert one.weights.equal(other.weights)
    assert [row.get("loss") for row in one.history] == [row.get("loss") for row in other.history]
    start = torch.cat([p.detach().flatten() for p in task.policy(kind=kind).parameters()])
    assert not one.weights.equal(start)


@pytest.mark.invariant
@CREDIT
@CASES
def test_a_pick_after_the_last_weighted_shot_gets_exactly_no_gradient(
    task: IdentityTask, case: str, credit: str
) -> None:
    """The third step has an embedding of its own, which stays as it was."""
    train, params = FEW[case]
    some = rewarded(task, [0.0, 1.0, 0.0])
    params = params.model_copy(update={"credit": credit})
    trained = train(some, task.policy(), params, groups=groups(some, SHOTS)).trained.policy
    before, after = (p.get_parameter("step.weight") for p in (task.policy(), trained))
    assert (before == after).all(-1).tolist() == [False, False, True]


@CASES
def test_credit_has_an_effect(task: IdentityTask, case: str) -> None:
    train, params = FEW[case]
    one, other = (
        train(task, task.policy(), params.model_copy(update={"credit": credit})).weights
        for credit in CREDITS
    )
    assert not one.equal(other)


def picked(task: IdentityTask, some: Groups) -> Tensor:
    policy = task.policy().eval()
    encoded = task.environment.encode(policy, some.queries)
    return policy.log_probs(encoded, some.pointers).detach()


@pytest.mark.invariant
@CREDIT
def test_the_first_loss_of_rce_is_that_of_the_returns_it_is_told(
    task: IdentityTask, credit: str
) -> None:
    """With total credit it is that of whole pointers: -sum softmax(R / tau) log pi."""
    some = rewarded(task, [0.2, 0.3, 0.5])
    changes = {"epochs": 1, "batch_size": 1000, "credit": credit}
    given, tau = some.groups(size=8), RCE.tau["rce"].start
    row = rce(some, task.policy(), RCE.model_copy(update=changes), groups=given).history[1]
    log_probs, weights = picked(task, given), torch.tensor([0.2, 0.3, 0.5])
    if credit == "total":
        masked = (given.rewards @ weights / tau).masked_fill(~given.keep, -torch.inf)
        expected = losses.sft(log_probs, masked.softmax(-1))
    else:
        returns = mean_to_go(given.rewards, weights)
        expected = losses.rce(log_probs, returns, given.keep, tau)
    assert row["loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.invariant
@CREDIT
def test_the_first_loss_of_agro_is_the_variance_of_the_returns_it_is_told(
    task: IdentityTask, credit: str
) -> None:
    some = rewarded(task, [0.2, 0.3, 0.5])
    changes = {"epochs": 1, "batch_size": 1000, "credit": credit}
    given = some.groups(size=8)
    row = agro(some, task.policy(), AGRO.model_copy(update=changes), groups=given).history[1]
    weights = torch.tensor([0.2, 0.3, 0.5])
    returns = reward_to_go(given.rewards, weights)
    if credit == "total":
        returns = total(given.rewards, weights)[..., :1]
    variances = [r[k].var(0).sum() for r, k in zip(returns, given.keep, strict=True)]
    expected = torch.stack(variances).mean() / (2 * AGRO.beta)
    assert row["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert abs(float(row["log_ratio"])) < 1e-5
