"""A user's selectors are found by name, and their rows are named after them."""

import pytest
from small_pools import HashVlm

from identity_task import IdentityTask
from lever_plus.errors import UserError
from lever_plus.selectors.baselines import RandomSelector
from lever_plus.selectors.registry import Context, make_selector, selector_names


def seeded(context: Context) -> RandomSelector:
    return RandomSelector(context.seed)


def nothing(_: Context) -> dict[str, int]:
    return {}


@pytest.fixture
def context(task: IdentityTask) -> Context:
    return Context(task.environment.features, HashVlm(), seed=5)


def test_a_factory_gets_what_it_may_use(task: IdentityTask, context: Context) -> None:
    made = make_selector("test_factories:seeded", context)
    query = task.environment.examples[task.dev[0]].query
    pool = [task.environment.examples[i] for i in task.environment.pools.of(task.dev[0])]
    expected = RandomSelector(5).select(query, pool, 3)
    assert made.select(query, pool, 3) == expected


def test_what_cannot_select_is_refused(context: Context) -> None:
    with pytest.raises(
        UserError,
        match=r"evaluate.selectors: test_factories:nothing returned a dict, which has no method s",
    ):
        make_selector("test_factories:nothing", context)
    with pytest.raises(UserError, match="evaluate.selectors: there is no unheard-of"):
        make_selector("unheard-of", context)


def test_rows_have_the_names_of_the_factories() -> None:
    assert selector_names(["own.module:nearest", "installed"]) == ["nearest", "installed"]
