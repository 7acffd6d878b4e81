"""Proposals: as many of each kind as asked for, with the log-probs they were drawn with."""

import math

import pytest
import torch
from identity_task import DEV, POOL, IdentityTask
from torch import Tensor

from lever_plus.params import RlDataParams
from lever_plus.policy.network import Selector
from lever_plus.rl.candidates import Proposal, propose

PARAMS = RlDataParams(beam=2, samples={"1.0": 3, "1.5": 2}, random=4)


@pytest.fixture
def policy(task: IdentityTask) -> Selector:
    """An untrained policy with dropout, made to have clear preferences."""
    policy = task.policy(dropout=0.5)
    with torch.no_grad():
        policy.key.weight.mul_(8)
    return policy


@pytest.fixture
def proposals(task: IdentityTask, policy: Selector) -> list[list[Proposal]]:
    policy.train()
    return propose(task.environment, policy, task.dev, PARAMS, seed=1)


def step_log_probs(task: IdentityTask, policy: Selector, query: int, pointer: list[int]) -> Tensor:
    encoded = task.environment.encode(policy.eval(), [query])
    return policy.step_log_probs(encoded, torch.tensor([[pointer]]))[0, 0].detach()


def test_every_query_gets_what_was_asked_for(proposals: list[list[Proposal]]) -> None:
    assert len(proposals) == DEV
    expected = [("beam", None)] * 2 + [("sample", 1.0)] * 3 + [("sample", 1.5)] * 2
    expected += [("random", None)] * 4
    for group in proposals:
        assert [(p.gen_method, p.temperature) for p in group] == expected


def test_a_generator_that_is_not_asked_for_gives_nothing(
    task: IdentityTask, policy: Selector
) -> None:
    params = RlDataParams(beam=0, samples={}, random=1)
    groups = propose(task.environment, policy, task.dev, params, seed=1)
    assert [[p.gen_method for p in group] for group in groups] == [["random"]] * DEV


def test_pointers_name_distinct_items_of_the_pool_of_their_query(
    task: IdentityTask, proposals: list[list[Proposal]]
) -> None:
    for query, group in zip(task.dev, proposals, strict=True):
        for proposal in group:
            assert len(task.environment.pools.positions(query, proposal.pointer)) == 3


@pytest.mark.invariant
def test_log_probs_are_those_of_the_distribution_that_was_drawn_from(
    task: IdentityTask, policy: Selector, proposals: list[list[Proposal]]
) -> None:
    """In eval mode, though the policy was handed over in training mode with dropout."""
    uniform = [-math.log(POOL - step) for step in range(3)]
    for query, group in zip(task.dev, proposals, strict=True):
        for proposal in group:
            pointer = task.environment.pools.positions(query, proposal.pointer)
            steps = step_log_probs(task, policy, query, pointer)
            tempered = (steps / (proposal.temperature or 1.0)).log_softmax(-1)
            picked = tempered[range(3), pointer].tolist()
            expected = uniform if proposal.gen_method == "random" else picked
            assert proposal.step_log_probs == pytest.approx(expected, abs=1e-5)


def test_the_first_beam_candidate_is_the_best_of_the_two(proposals: list[list[Proposal]]) -> None:
    for group in proposals:
        assert sum(group[0].step_log_probs) >= sum(group[1].step_log_probs)
        assert group[0].pointer != group[1].pointer


def test_proposals_depend_on_the_seed_and_nothing_else(
    task: IdentityTask, policy: Selector, proposals: list[list[Proposal]]
) -> None:
    torch.manual_seed(99)
    assert propose(task.environment, policy, task.dev, PARAMS, seed=1) == proposals
    assert propose(task.environment, policy, task.dev, PARAMS, seed=2) != proposals
