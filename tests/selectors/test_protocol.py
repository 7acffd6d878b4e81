"""All selectors are called in the same way, and their choices are checked against the pool."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from small_pools import HashVlm, example, examples, ids, of

from identity_task import SHOTS, IdentityTask
from lever_plus.data.examples import Example, Query
from lever_plus.errors import PointerError, UserError
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.features.sources import Features
from lever_plus.policy.network import Policy
from lever_plus.selectors.base import (
    BatchSelector,
    Selection,
    Selector,
    select_all,
    select_each_shot,
)
from lever_plus.selectors.baselines import (
    AsManySelector,
    DiverseSelector,
    FixedSelector,
    RandomSelector,
    SimilaritySelector,
)
from lever_plus.selectors.best_of import BestOfSamples
from lever_plus.selectors.infoscore import InfoScoreSearch
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.scorer import Scorer
from tiny_world import World

POOL = examples(range(1, 7))
QUERIES = [example(number).query for number in (100, 101)]
STEADY = [*SIMILARITIES, "diverse", "learned", "search"]
"""Selectors that draw nothing, and look at the pool."""
Choose = Callable[[Sequence[Example], int], list[Example]]


class Own:
    """A user's selector, with one method and nothing else."""

    def __init__(self, choose: Choose) -> None:
        """Keep how it chooses."""
        self._choose = choose

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        assert isinstance(query, Query)
        return self._choose(pool, shots)


def last(pool: Sequence[Example], shots: int) -> list[Example]:
    return list(pool)[: -shots - 1 : -1]


def make(
    name: str, policy: Policy, features: Features, asked: Sequence[Example], fixed: list[Example]
) -> Selector:
    """Return a selector; those that see the true answers get them from `asked`."""
    answered = [replace(one, answer="3") for one in asked]
    learned, vlm = LearnedSelector(policy, features), HashVlm()
    made: dict[str, Selector] = {
        "random": RandomSelector(0),
        **{similarity: SimilaritySelector(features, similarity) for similarity in SIMILARITIES},
        "diverse": DiverseSelector(features, 0.5),
        "fixed": FixedSelector(fixed),
        "learned": learned,
        "best": BestOfSamples(learned, Scorer(vlm), answered, count=4, seed=0),
        "search": InfoScoreSearch(vlm, answered, beam=3),
    }
    return made[name]


def test_a_user_s_object_needs_select_alone() -> None:
    """Its choices of fewer demonstrations are the beginning of its longest choice."""
    pools = [POOL, POOL[:4]]
    whole = select_all(Own(last), QUERIES, pools, 3)
    assert [ids(selection.examples) for selection in whole] == [[6, 5, 4], [4, 3, 2]]
    assert all(selection.log_probs == () for selection in whole)
    each = select_each_shot(Own(last), QUERIES, pools, 3)
    assert [[ids(s.examples) for s in selections] for selections in each] == [
        [[6], [4]],
        [[6, 5], [4, 3]],
        [[6, 5, 4], [4, 3, 2]],
    ]


def test_a_selector_that_chooses_anew_at_every_shot_is_asked_so() -> None:
    class Anew(Own):
        def select_each_shot(
            self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
        ) -> list[list[Selection]]:
            assert len(queries) == len(pools)
            return [
                [Selection(tuple(pool[shot : 2 * shot])) for pool in pools]
                for shot in range(1, shots + 1)
            ]

    each = select_each_shot(Anew(last), QUERIES, [POOL, POOL], 3)
    assert [[ids(s.examples) for s in selections] for selections in each] == [
        [[2], [2]],
        [[3, 4], [3, 4]],
        [[4, 5, 6], [4, 5, 6]],
    ]
    with pytest.raises(PointerError, match="chose 1 distinct examples for .*, not 2"):
        select_each_shot(Anew(last), QUERIES, [POOL[:3], POOL[:3]], 2)


@pytest.mark.invariant
@pytest.mark.parametrize("ask", [select_all, select_each_shot])
@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        (lambda pool, shots: [*pool[: shots - 1], example(99)], "that is not in its pool"),
        (
            lambda pool, shots: [*pool[: shots - 1], replace(pool[-1], answer="x")],
            "not in its pool",
        ),
        (lambda pool, shots: [pool[0]] * shots, "chose 1 distinct examples for .*, not 2"),
        (lambda pool, shots: [*pool[:shots], pool[0]], "chose 2 distinct examples for .*, not 2"),
        (lambda pool, shots: list(pool[: shots - 1]), "chose 1 distinct examples for .*, not 2"),
        (lambda pool, shots: list(pool[: shots + 1]), "chose 3 distinct examples for .*, not 2"),
    ],
    ids=["outside", "another answer", "the same twice", "one twice", "too short", "too long"],
)
def test_a_selection_that_is_no_pointer_into_its_pool_is_refused(
    ask: Callable[..., object], choose: Choose, sentence: str
) -> None:
    with pytest.raises(PointerError, match=sentence):
        ask(Own(choose), QUERIES[:1], [POOL], 2)


class Stopping(Own):
    """A user's selector that may show fewer than it is asked for."""

    stops = True


@pytest.mark.invariant
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_selector_that_stops_may_show_fewer(count: int) -> None:
    """At every shot it shows the beginning of its whole choice."""
    each = select_each_shot(Stopping(lambda pool, _: list(pool[:count])), QUERIES[:1], [POOL], 2)
    assert [ids(s.examples) for (s,) in each] == [ids(POOL[: min(count, k)]) for k in (1, 2)]


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        (lambda pool, shots: list(pool[: shots + 1]), "chose 3 distinct examples for .*, not 2"),
        (lambda pool, _: [pool[0], pool[0]], "chose 1 distinct examples for .*, not 2"),
        (lambda _pool, _shots: [example(99)], "that is not in its pool"),
    ],
    ids=["too long", "one twice", "outside"],
)
def test_what_it_shows_is_checked_all_the_same(choose: Choose, sentence: str) -> None:
    with pytest.raises(PointerError, match=sentence):
        select_all(Stopping(choose), QUERIES[:1], [POOL], 2)


def test_as_many_are_shown_as_another_selector_shows(task: IdentityTask, stopping: Policy) -> None:
    asked = of(task, (*task.train, *task.dev))
    queries = [one.query for one in asked]
    pools = [of(task, task.environment.pools.of(one.question_id)) for one in asked]
    features = task.environment.features
    counter, chooser = LearnedSelector(stopping, features, 0.05), SimilaritySelector(features)
    found = select_all(AsManySelector(chooser, counter), queries, pools, SHOTS)
    counts = [len(s.examples) for s in select_all(counter, queries, pools, SHOTS)]
    assert len(set(counts)) > 1
    nearest = select_all(chooser, queries, pools, SHOTS)
    for some, whole, count in zip(found, nearest, counts, strict=True):
        assert some.examples == whole.examples[:count]


class Lazy(Sequence[Example]):
    """A pool that makes a new object whenever an example is read."""

    def __getitem__(self, place: Any) -> Any:
        """Return one, or some of them."""
        return [*map(replace, POOL)][place]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(POOL)


@pytest.mark.invariant
def test_a_pool_may_make_its_examples_anew() -> None:
    """Whether an example is in the pool does not depend on which object it is."""
    found = select_all(Own(last), QUERIES[:1], [Lazy()], 2)
    assert ids(found[0].examples) == ids(last(POOL, 2))
    for number in range(50):
        others = [example(1000 + number), example(2000 + number)]
        with pytest.raises(PointerError, match="not in its pool"):
            select_all(Own(lambda _pool, _shots, o=others: o), QUERIES[:1], [Lazy()], 2)


@pytest.mark.invariant
def test_a_user_s_selector_may_not_show_the_query_s_image() -> None:
    same = example(7, image=example(100).image_sha256)
    with pytest.raises(PointerError, match=r"'What is 100\?' .* shows the query's own image"):
        select_all(Own(last), QUERIES[:1], [[*POOL, same]], 2)
    found = select_all(Own(last), QUERIES[1:], [[*POOL, same]], 2)
    assert ids(found[0].examples) == [7, 6]


@pytest.mark.invariant
@pytest.mark.parametrize("name", [*STEADY, "best", "random", "fixed"])
@pytest.mark.parametrize("kept", [(0, 1), (2, 5), (4, 3)])
def test_a_candidate_with_the_query_s_image_is_never_chosen(
    task: IdentityTask, learned: LearnedSelector, name: str, kept: tuple[int, int]
) -> None:
    """No selector shows it, even if only as many others are left as are asked for."""
    query = task.environment.examples[task.dev[0]]
    pool = [
        one if place in kept else replace(one, image_sha256=query.image_sha256)
        for place, one in enumerate(of(task, task.environment.pools.of(query.question_id)))
    ]
    known = {**task.environment.examples, **{one.question_id: one for one in pool}}
    features = replace(task.environment, examples=known).features
    selector = make(name, learned.policy, features, [query], pool)
    for chosen in (
        selector.select(query.query, pool, 2),
        select_all(selector, [query.query], [pool], 2)[0].examples,
        select_each_shot(selector, [query.query], [pool], 2)[-1][0].examples,
    ):
        assert set(chosen) == {pool[place] for place in kept}


@pytest.mark.parametrize("name", [*STEADY, "best", "random"])
def test_a_pool_that_is_too_small_or_names_an_example_twice_is_refused(
    task: IdentityTask, learned: LearnedSelector, name: str
) -> None:
    query = task.environment.examples[task.dev[0]]
    pool = of(task, task.environment.pools.of(query.question_id))
    selector = make(name, learned.policy, learned.features, [query], [])
    with pytest.raises(UserError, match="3 demonstrations are asked .* has 2 examples with anoth"):
        selector.select(query.query, pool[:2], 3)
    with pytest.raises(UserError, match="the pool holds an example twice: leave repeats out"):
        selector.select(query.query, [*pool, pool[0]], 2)
    assert len(selector.select(query.query, pool[:2], 2)) == 2


@pytest.mark.parametrize("name", STEADY)
def test_selectors_select_one_by_one_what_they_select_together(
    task: IdentityTask, learned: LearnedSelector, name: str
) -> None:
    asked = of(task, task.dev[:5])
    queries = [one.query for one in asked]
    pools = [of(task, task.environment.pools.of(one.question_id)) for one in asked]
    selector = make(name, learned.policy, learned.features, asked, [])
    together = select_each_shot(selector, queries, pools, SHOTS)[-1]
    alone = [selector.select(q, pool, SHOTS) for q, pool in zip(queries, pools, strict=True)]
    assert [list(selection.examples) for selection in together] == alone


def test_hashes_of_images_are_found_where_they_are_not_known(world: World, tmp_path: Path) -> None:
    """The query's image in another file is still the query's image."""
    dev = world.splits["dev"]
    other = next(e for e in dev if e.image_sha256 != dev[0].image_sha256)
    copied = copyfile(dev[0].image, tmp_path / "copy.png")
    pool = [Example(str(copied), "Is it the same?", "yes"), Example(other.image, "Another?", "no")]
    query = Query(dev[0].image, dev[0].question)
    (chosen,) = RandomSelector(0).select(query, pool, 1)
    assert (chosen.question, chosen.image_sha256) == ("Another?", other.image_sha256)
    with pytest.raises(UserError, match="has 1 examples with another image"):
        RandomSelector(0).select(query, pool, 2)
    with pytest.raises(UserError, match="cannot be read"):
        RandomSelector(0).select(Query(str(tmp_path / "nowhere.png"), "?"), pool, 1)


def test_no_query_needs_no_pool(learned: LearnedSelector) -> None:
    assert isinstance(learned, BatchSelector)
    assert select_all(learned, [], [], 2) == []
    assert select_each_shot(learned, [], [], 2) == [[], []]
