"""Candidates: as many of each kind as asked for, with the log-probs they were drawn with."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from identity_task import DEV, POOL, SHOTS, IdentityTask
from lever_plus.config.rl_data import RlDataParams
from lever_plus.policy.decoding import sample
from lever_plus.policy.network import Policy
from lever_plus.training.rl_data.candidates import Proposal, fresh_groups, propose

NONE = RlDataParams(beam=0, samples={}, stochastic_beam={}, random=0, retrieval=0, scores=[])
PARAMS = NONE.model_copy(
    update={
        "beam": 2,
        "samples": {"1.0": 3, "1.5": 2},
        "stochastic_beam": {"0.8": 3},
        "random": 4,
        "retrieval": 2,
    }
)


@pytest.fixture
def policy(task: IdentityTask) -> Policy:
    """An untrained policy with dropout, made to have clear preferences."""
    policy = task.policy(dropout=0.5)
    with torch.no_grad():
        policy.get_parameter("key.weight").mul_(8)
    return policy


@pytest.fixture
def proposals(task: IdentityTask, policy: Policy) -> list[list[Proposal]]:
    policy.train()
    return list(propose(task.environment, policy, task.dev, PARAMS, seed=1))


def step_log_probs(task: IdentityTask, policy: Policy, query: int, pointer: list[int]) -> Tensor:
    encoded = task.environment.encode(policy.eval(), [query])
    return policy.step_log_probs(encoded, torch.tensor([[pointer]]))[0, 0].detach()


def test_every_query_gets_what_was_asked_for(proposals: list[list[Proposal]]) -> None:
    assert len(proposals) == DEV
    expected = [("beam", None)] * 2 + [("sample", 1.0)] * 3 + [("sample", 1.5)] * 2
    expected += [("stochastic_beam", 0.8)] * 3 + [("random", None)] * 4 + [("retrieval", None)] * 2
    for group in proposals:
        assert [(p.gen_method, p.temperature) for p in group] == expected


def test_a_generator_that_is_not_asked_for_gives_nothing(
    task: IdentityTask, policy: Policy
) -> None:
    params = NONE.model_copy(update={"random": 1})
    groups = list(propose(task.environment, policy, task.dev, params, seed=1))
    assert [[p.gen_method for p in group] for group in groups] == [["random"]] * DEV


def test_pointers_name_distinct_items_of_the_pool_of_their_query(
    task: IdentityTask, proposals: list[list[Proposal]]
) -> None:
    for query, group in zip(task.dev, proposals, strict=True):
        for proposal in group:
            assert len(task.environment.pools.positions(query, proposal.pointer)) == 3


@pytest.mark.invariant
def test_log_probs_are_those_of_the_distribution_that_was_drawn_from(
    task: IdentityTask, policy: Policy, proposals: list[list[Proposal]]
) -> None:
    """In eval mode, though the policy was handed over in training mode with dropout."""
    uniform = [-math.log(POOL - step) for step in range(3)]
    for query, group in zip(task.dev, proposals, strict=True):
        for proposal in group:
            if proposal.gen_method == "retrieval":
                assert proposal.step_log_probs is None
                continue
            pointer = task.environment.pools.positions(query, proposal.pointer)
            steps = step_log_probs(task, policy, query, pointer)
            tempered = (steps / (proposal.temperature or 1.0)).log_softmax(-1)
            picked = tempered[range(3), pointer].tolist()
            expected = uniform if proposal.gen_method == "random" else picked
            assert proposal.step_log_probs == pytest.approx(expected, abs=1e-5)


def test_the_first_beam_candidate_is_the_best_of_the_two(proposals: list[list[Proposal]]) -> None:
    for group in proposals:
        first, second = (sum(proposal.step_log_probs or ()) for proposal in group[:2])
        assert 0 > first >= second
        assert group[0].pointer != group[1].pointer


def test_proposals_depend_on_the_seed_and_nothing_else(
    task: IdentityTask, policy: Policy, proposals: list[list[Proposal]]
) -> None:
    torch.manual_seed(99)
    assert list(propose(task.environment, policy, task.dev, PARAMS, seed=1)) == proposals
    assert list(propose(task.environment, policy, task.dev, PARAMS, seed=2)) != proposals


def test_what_is_drawn_without_replacement_is_distinct(task: IdentityTask, policy: Policy) -> None:
    params = NONE.model_copy(update={"stochastic_beam": {"1.0": 20, "2.0": 30}})
    for group in propose(task.environment, policy, task.dev, params, seed=1):
        for temperature, count in ((1.0, 20), (2.0, 30)):
            drawn = [p.pointer for p in group if p.temperature == temperature]
            assert len(drawn) == len(set(drawn)) == count


def test_retrieval_takes_the_nearest_by_question_image_and_both_then_the_next(
    task: IdentityTask, policy: Policy
) -> None:
    unit, rows = task.environment.embeddings.unit, task.environment.embeddings.rows
    params = NONE.model_copy(update={"retrieval": 5})
    groups = list(propose(task.environment, policy, task.dev, params, seed=1))
    for query, group in zip(task.dev, groups, strict=True):
        pool = task.environment.pools.of(query)
        by = {
            part: np.array([unit[part][rows[i]] @ unit[part][rows[query]] for i in pool])
            for part in ("question", "image")
        }
        cosines = (by["question"], by["image"], by["question"] + by["image"])
        order = [[pool[i] for i in np.argsort(-each)] for each in cosines]
        expected = [tuple(ids[:SHOTS]) for ids in order]
        expected += [tuple(ids[SHOTS : 2 * SHOTS]) for ids in order[:2]]
        assert [p.pointer for p in group] == expected
        assert {(p.gen_method, p.temperature, p.step_log_probs) for p in group} == {
            ("retrieval", None, None)
        }


@pytest.mark.invariant
def test_fresh_candidates_are_samples_of_the_policy_with_their_log_probs_and_rewards(
    task: IdentityTask, policy: Policy
) -> None:
    """In eval mode at temperature one; repeats are kept, for each is a sample of its own."""
    policy.train()
    source = torch.Generator().manual_seed(3)
    groups, log_probs = fresh_groups(policy, task.environment, task.train, 20, source)
    encoded = task.environment.encode(policy.eval(), task.train)
    drawn = sample(policy, encoded, SHOTS, 20, 1.0, torch.Generator().manual_seed(3))
    assert groups.queries == task.train
    assert groups.pointers.equal(drawn.pointers)
    forced = policy.log_probs(encoded, groups.pointers).detach()
    torch.testing.assert_close(log_probs, forced, rtol=0, atol=1e-5)
    assert groups.keep.all()
    ids = task.environment.example_ids(task.train, groups.pointers)
    assert any(len(set(group)) < 20 for group in ids)
    expected = task.scorer.rewards([pointer for group in ids for pointer in group])
    assert groups.rewards.flatten(0, 1).equal(torch.from_numpy(expected))
