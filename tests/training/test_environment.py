"""The environment asks the VLM what a reward needs, each prefix once, and pads small pools."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from identity_task import SHOTS, IdentityTask, Kind
from lever_plus.config.reward import RewardParams
from lever_plus.data.pools import Pools
from lever_plus.metric.relevance import relevance
from lever_plus.policy.kinds import KINDS
from lever_plus.training.environment import Environment
from lever_plus.vlm.request import Request, VlmIdentity
from lever_plus.vlm.scorer import Scorer


class FormulaVlm:
    """Answers with the last demonstration's id; likelihoods fall with the first id and length."""

    identity = VlmIdentity(model="m", revision="r", dtype="d", prompt_hash="h", generation="g")

    def __init__(self) -> None:
        """Start without any request."""
        self.asked: list[Request] = []
        self.weighed: list[Request] = []

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        assert description
        self.asked += requests
        assert not any(request.answer for request in requests)
        return [str(request.demonstrations[-1].question_id) for request in requests]

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        assert description
        assert {request.answer for request in requests} == {"1004"}
        self.weighed += requests
        return [
            -len(request.demonstrations) - request.demonstrations[0].question_id / 1e4
            for request in requests
        ]


@pytest.fixture
def vlm() -> FormulaVlm:
    return FormulaVlm()


@pytest.fixture
def environment(task: IdentityTask, vlm: FormulaVlm) -> Environment:
    """The identity task with a VLM, and with human answers to its dev queries."""
    answers = ("1003 cats",) * 2 + ("1004",) * 8
    known = task.environment.examples
    answered = {q: replace(known[q], answers=answers, answer="1004") for q in task.dev}
    return replace(task.environment, examples={**known, **answered}, scorer=Scorer(vlm))


RELEVANCE = RewardParams(
    hard=1.0, gt_prob=0.5, near_miss=0.25, clip=5.0, shot_weights=[1.0] * SHOTS
)


@pytest.mark.invariant
def test_a_prefix_is_asked_once_and_its_order_matters(
    task: IdentityTask, environment: Environment, vlm: FormulaVlm
) -> None:
    query, (a, b, c) = task.dev[0], (1001, 1002, 1003)
    pointers = [(a, b, c), (a, c, b), (a, b, c), (b, a, c)]
    environment.rewards([query] * 4, pointers, "dev")
    prefixes = {(a,), (b,), (a, b), (a, c), (b, a), *pointers}
    asked = environment.examples[query].query
    shown = environment.demonstrations(sorted(prefixes))
    assert len(vlm.asked) == len(prefixes)
    assert set(vlm.asked) == {Request(tuple(examples), asked) for examples in shown}


def test_scores_are_those_of_every_prefix(task: IdentityTask, environment: Environment) -> None:
    query = task.dev[0]
    scored = environment.score([query], [(1003, 1004, 1005)], {"gt_prob", "relevance"}, "dev")
    assert [s.answer for s in scored.answers[0]] == ["1003", "1004", "1005"]
    assert scored.scores.hard.tolist() == [[0.0, 1.0, 0.0]]
    assert scored.scores.soft.tolist() == [[0.0, 1.0, 0.0]]
    assert scored.scores.gt_prob is not None
    assert_allclose(scored.scores.gt_prob, [[math.exp(-k - 0.1003) for k in (1, 2, 3)]], rtol=1e-6)
    near = [relevance(answer, ["1003 cats", "1004"]) for answer in ("1003", "1004", "1005")]
    assert scored.scores.relevance is not None
    assert_allclose(scored.scores.relevance, [near], rtol=1e-6)


def test_only_what_the_reward_needs_is_asked(
    task: IdentityTask, environment: Environment, vlm: FormulaVlm
) -> None:
    environment.rewards(task.dev[:1], [(1003, 1004, 1005)], "dev")
    assert vlm.weighed == []
    needing = replace(environment, reward=RELEVANCE)
    rewards = needing.rewards(task.dev[:1], [(1003, 1004, 1005)], "dev")
    assert len(vlm.weighed) == 3
    probabilities = [0.5 * math.exp(-k - 0.1003) for k in (1, 2, 3)]
    near = [0.25 * relevance(answer, ["1003 cats", "1004"]) for answer in ("1003", "1005")]
    expected = np.array(probabilities) + np.array([near[0], 1.0, near[1]])
    assert_allclose(rewards, [expected], rtol=1e-6)


def test_realised_gives_the_greedy_pointers_with_reward_and_accuracy(
    task: IdentityTask, environment: Environment
) -> None:
    double = RewardParams(soft=2.0, clip=5.0, shot_weights=[1.0] * SHOTS)
    realised = replace(environment, reward=double).realised(task.policy(), task.dev)
    assert realised.pointers == environment.greedy_pointers(task.policy(), task.dev)
    expected = [[float(i == 1004) for i in pointer] for pointer in realised.pointers]
    assert realised.accuracies.tolist() == expected
    assert realised.rewards.tolist() == [[2 * x for x in row] for row in expected]


def test_shot_weights_sum_to_one_so_that_rewards_keep_their_unit(environment: Environment) -> None:
    reward = RewardParams(soft=1.0, clip=5.0, shot_weights=[0.0, 1.0, 3.0])
    assert replace(environment, reward=reward).shot_weights == (0.0, 0.25, 0.75)


@pytest.mark.invariant
@pytest.mark.parametrize("kind", KINDS)
def test_smaller_pools_are_scored_in_a_batch_as_alone(task: IdentityTask, kind: Kind) -> None:
    sizes = {q: 4 + q % 3 for q in task.dev}
    ids = {q: task.environment.pools.of(q)[:size] for q, size in sizes.items()}
    environment = replace(task.environment, pools=Pools(ids, "q" * 64))
    policy = task.policy(kind=kind).double().eval().float()
    pointers = torch.tensor([[[0, 1, 2], [3, 0, 1]]]).expand(len(task.dev), -1, -1)
    together = policy.step_log_probs(environment.encode(policy, task.dev), pointers)
    for row, query in enumerate(task.dev):
        alone = policy.step_log_probs(environment.encode(policy, [query]), pointers[:1])
        assert alone.shape[-1] == sizes[query]
        assert_close(together[row, ..., : sizes[query]], alone[0], rtol=0, atol=1e-5)
        assert (together[row, ..., sizes[query] :] == -math.inf).all()


@pytest.mark.invariant
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_copy_gives_the_distributions_of_the_policy_as_it_was(
    task: IdentityTask, kind: Kind
) -> None:
    environment, policy = task.environment, task.policy(dropout=0.5, kind=kind).train()
    frozen = environment.frozen(policy)
    pointers = torch.tensor([[[0, 1, 2], [3, 0, 5]]]).expand(len(task.dev), -1, -1)
    encoded = environment.encode(policy.eval(), task.dev)
    expected = policy.step_log_probs(encoded, pointers)[:, :, :SHOTS].detach()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.zero_()
    found = frozen.steps(task.dev, pointers).joined()
    assert not found.requires_grad
    assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_environment_with_other_pools_encodes_those(task: IdentityTask) -> None:
    policy, query = task.policy(), task.dev[0]
    before = task.environment.encode(policy, [query]).keys
    reversed_pools = Pools({query: task.environment.pools.of(query)[::-1]}, "other")
    after = replace(task.environment, pools=reversed_pools).encode(policy, [query]).keys
    assert_close(after, before.flip(1))
