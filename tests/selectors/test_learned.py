"""A learned selector chooses what its policy prefers, for one query or for a batch."""

from dataclasses import replace

import pytest
import torch
from small_pools import ids, of, uneven_pools

from identity_task import SHOTS, IdentityTask
from lever_plus.data.pools import Pools
from lever_plus.errors import UserError
from lever_plus.policy.decoding import sample
from lever_plus.policy.network import Policy
from lever_plus.selectors.base import select_all
from lever_plus.selectors.learned import LearnedSelector


@pytest.mark.invariant
@pytest.mark.parametrize("shots", [1, 2, SHOTS])
def test_it_selects_as_the_environment_decodes_that_trained_it(
    task: IdentityTask, learned: LearnedSelector, shots: int
) -> None:
    """The same pointers and log-probs from pools of different sizes, in batches and alone."""
    queries = (*task.train, *task.dev)
    pools = uneven_pools(task, queries)
    assert {len(pool) for pool in pools.values()} == {4, 5, 6}
    environment = replace(task.environment, pools=Pools(pools, "q" * 64))
    expected = environment.greedy_decoded(learned.policy, queries, shots)
    asked = [e.query for e in of(task, queries)]
    candidates = [of(task, pools[query]) for query in queries]
    together = select_all(learned, asked, candidates, shots)
    alone = [
        learned.select_all([query], [pool], shots)[0]
        for query, pool in zip(asked, candidates, strict=True)
    ]
    assert len(set(expected.pointers)) > len(queries) / 4
    for found in (together, alone):
        assert [tuple(ids(selection.examples)) for selection in found] == expected.pointers
        for selection, log_probs in zip(found, expected.log_probs, strict=True):
            assert selection.log_probs == pytest.approx(log_probs, abs=1e-5)
    assert [learned.select(q, pool, shots) for q, pool in zip(asked, candidates, strict=True)] == [
        list(selection.examples) for selection in alone
    ]


@pytest.mark.invariant
def test_the_order_of_a_pool_does_not_matter(task: IdentityTask, learned: LearnedSelector) -> None:
    for query in task.dev:
        asked = task.environment.examples[query].query
        pool = of(task, task.environment.pools.of(query))
        assert learned.select(asked, pool[::-1], SHOTS) == learned.select(asked, pool, SHOTS)


@pytest.mark.parametrize("shots", [0, SHOTS + 1])
def test_other_numbers_of_shots_than_the_policy_s_are_refused(
    task: IdentityTask, learned: LearnedSelector, shots: int
) -> None:
    query = task.environment.examples[task.dev[0]].query
    pool = of(task, task.environment.pools.of(task.dev[0]))
    with pytest.raises(
        UserError, match=f"can pick 1 to {SHOTS} demonstrations, but {shots} were asked for"
    ):
        learned.select(query, pool, shots)


def test_another_decoder_gives_groups(task: IdentityTask, learned: LearnedSelector) -> None:
    queries = task.dev[:3]
    generator = torch.Generator().manual_seed(5)
    groups = learned.decode(
        [e.query for e in of(task, queries)],
        [of(task, task.environment.pools.of(query)) for query in queries],
        2,
        lambda policy, encoded, shots: sample(policy, encoded, shots, 7, 1.0, generator),
    )
    assert [len(group) for group in groups] == [7] * 3
    encoded = task.environment.encode(learned.policy, queries)
    for row, (query, group) in enumerate(zip(queries, groups, strict=True)):
        for selection in group:
            places = task.environment.pools.positions(query, ids(selection.examples))
            pointer = torch.tensor([[places]]).expand(3, -1, -1)
            expected = learned.policy.log_probs(encoded, pointer)[row, 0].tolist()
            assert selection.log_probs == pytest.approx(expected, abs=1e-5)


def test_it_is_in_eval_mode(learned: LearnedSelector) -> None:
    assert not any(module.training for module in learned.policy.modules())


@pytest.mark.invariant
@pytest.mark.parametrize("shots", [1, 2, SHOTS])
def test_a_price_lets_it_show_the_first_of_what_it_would_show(
    task: IdentityTask, stopping: Policy, shots: int
) -> None:
    """It may show any number, even none; without a price it shows as many as are asked for."""
    queries = (*task.train, *task.dev)
    pools = [of(task, task.environment.pools.of(query)) for query in queries]
    asked = [e.query for e in of(task, queries)]
    features = task.environment.features
    whole = select_all(LearnedSelector(stopping, features), asked, pools, shots)
    assert {len(selection.examples) for selection in whole} == {shots}
    selector = LearnedSelector(stopping, features, price=0.05)
    found = select_all(selector, asked, pools, shots)
    for some, full in zip(found, whole, strict=True):
        count = len(some.examples)
        assert (some.examples, some.log_probs) == (full.examples[:count], full.log_probs[:count])
    counts = {len(selection.examples) for selection in found}
    assert len(counts) > 1
    assert [selector.select(q, pool, shots) for q, pool in zip(asked, pools, strict=True)] == [
        list(selection.examples) for selection in found
    ]


def test_the_price_decides_how_many_it_shows(task: IdentityTask, stopping: Policy) -> None:
    asked = [e.query for e in of(task, task.train)]
    pools = [of(task, task.environment.pools.of(query)) for query in task.train]
    features = task.environment.features
    shown = [
        [len(s.examples) for s in LearnedSelector(stopping, features, p).choose(asked, pools, 3)]
        for p in (0.0, 0.2)
    ]
    assert shown[0] != shown[1]


@pytest.mark.parametrize("price", [-0.01, 0.21, float("nan")])
def test_a_price_that_was_not_learned_is_refused(
    task: IdentityTask, stopping: Policy, price: float
) -> None:
    with pytest.raises(UserError, match=r"was trained with prices from 0 to 0\.2, not "):
        LearnedSelector(stopping, task.environment.features, price)


def test_a_policy_that_does_not_decide_when_to_stop_takes_no_price(
    learned: LearnedSelector,
) -> None:
    assert not learned.stops
    with pytest.raises(UserError, match=r"as many demonstrations as it is asked for.*grpo-stop"):
        LearnedSelector(learned.policy, learned.features, 0.0)
