"""Baselines choose from the pool, by the rule that their names promise."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from small_pools import example, examples, ids

from lever_plus.errors import PointerError, UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.features.sources import StoredFeatures
from lever_plus.selectors.base import select_all
from lever_plus.selectors.baselines import (
    DiverseSelector,
    FixedSelector,
    RandomSelector,
    SimilaritySelector,
    fixed_candidates,
)

ANGLES = {
    "question": {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 9: 0.3},
    "image": {0: 0.0, 1: 0.3, 2: 0.2, 3: 0.1, 9: 0.0},
    "answer": dict.fromkeys((0, 1, 2, 3, 9), 0.0),
}
POOLS = {0: examples((1, 2, 3)), 9: examples((3, 2, 1))}


def features_of(angles: Mapping[str, Mapping[int, float]]) -> StoredFeatures:
    """Return unit features in the plane."""
    numbers = list(angles["question"])
    unit = {
        part: np.array([[np.cos(a), np.sin(a)] for a in each.values()], dtype=np.float32)
        for part, each in angles.items()
    }
    rows = {number: row for row, number in enumerate(numbers)}
    embeddings = Embeddings(rows, unit, np.empty((len(rows), 0)), 0, "space")
    return StoredFeatures(embeddings, {number: example(number) for number in numbers})


def nearest(name: str, queries: Sequence[int], shots: int) -> list[list[int]]:
    selector = SimilaritySelector(features_of(ANGLES), name)
    asked, pools = [example(q).query for q in queries], [POOLS[q] for q in queries]
    return [ids(selection.examples) for selection in select_all(selector, asked, pools, shots)]


def test_nearest_by_question_and_by_image_go_opposite_ways() -> None:
    assert nearest("sttr", [0, 9], 3) == [[1, 2, 3], [3, 2, 1]]
    assert nearest("siir", [0], 2) == [[3, 2]]
    assert nearest("mixed", [0], 1) == [[2]]


def test_sitr_compares_the_query_s_image_with_the_candidate_s_text() -> None:
    """Query 9 has its image at angle 0: the nearest text is that of example 1."""
    assert nearest("sitr", [9], 3) == [[1, 2, 3]]


def test_the_true_answer_is_never_compared() -> None:
    parts = {part for pairs in SIMILARITIES.values() for pair in pairs for part in pair}
    assert parts == {"question", "image"}


def test_a_similarity_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="similarity 'x' is none of sttr"):
        SimilaritySelector(features_of(ANGLES), "x")


@pytest.mark.invariant
def test_random_pointers_are_distinct_seeded_and_from_the_pool() -> None:
    queries = [example(number).query for number in range(5)]
    pools = [examples(range(10, 30))] * 5
    drawn, again, other = (
        select_all(RandomSelector(seed), queries, pools, 4) for seed in (1, 1, 2)
    )
    assert drawn == again
    assert all(one != another for one, another in zip(drawn, other, strict=True))
    assert len({selection.examples for selection in drawn}) == 5
    assert all(len(set(selection.examples)) == 4 for selection in drawn)


@pytest.mark.invariant
def test_random_pointers_one_by_one_are_those_of_the_batch() -> None:
    queries = [example(number).query for number in range(6)]
    pools = [examples(range(10, 20 + number)) for number in range(6)]
    together = [list(s.examples) for s in select_all(RandomSelector(1), queries, pools, 3)]
    selector = RandomSelector(1)
    assert [selector.select(q, p, 3) for q, p in zip(queries, pools, strict=True)] == together


def test_random_pointers_are_uniform() -> None:
    """Each of the 12 pointers of two picks from four, within five standard deviations."""
    selector, query, pool = RandomSelector(0), example(0).query, examples(range(1, 5))
    counts: dict[tuple[int, ...], int] = {}
    for selection in selector.select_all([query] * 2400, [pool] * 2400, 2):
        pointer = tuple(ids(selection.examples))
        counts[pointer] = counts.get(pointer, 0) + 1
    assert len(counts) == 12
    assert all(abs(count - 200) < 5 * np.sqrt(200) for count in counts.values())


def test_diverse_pointers_start_near_and_then_go_away_from_what_they_have() -> None:
    angles = {0: 0.0, 1: 0.1, 2: 0.11, 3: 0.6}
    features = features_of(dict.fromkeys(("question", "image", "answer"), angles))
    query, pool = example(0).query, examples((1, 2, 3))
    assert ids(DiverseSelector(features, relevance=1.0).select(query, pool, 2)) == [1, 2]
    assert ids(DiverseSelector(features, relevance=0.3).select(query, pool, 2)) == [1, 3]
    assert ids(DiverseSelector(features, relevance=0.3).select(query, pool, 3)) == [1, 3, 2]


def test_a_fixed_pointer_comes_from_what_all_pools_share_if_they_share_enough() -> None:
    drawn = fixed_candidates([(1, 2, 3, 4), (2, 3, 4, 5)], 2, count=20, seed=0)
    assert {i for pointer in drawn for i in pointer} == {2, 3, 4}
    assert drawn == fixed_candidates([(1, 2, 3, 4), (2, 3, 4, 5)], 2, count=20, seed=0)
    assert drawn != fixed_candidates([(1, 2, 3, 4), (2, 3, 4, 5)], 2, count=20, seed=1)
    drawn = fixed_candidates([(1, 2), (3, 4)], 2, count=20, seed=0)
    assert {i for pointer in drawn for i in pointer} == {1, 2, 3, 4}
    assert all(len(set(pointer)) == 2 for pointer in drawn)


def test_a_fixed_pointer_is_shown_to_all_queries_in_its_order() -> None:
    pointer, queries = examples((5, 3, 4)), [example(number).query for number in (0, 1)]
    inside, elsewhere = examples(range(2, 7)), examples(range(6, 9))
    loose = FixedSelector(pointer)
    for shots in (1, 2, 3):
        found = select_all(loose, queries, [inside, elsewhere], shots)
        assert [ids(selection.examples) for selection in found] == [[5, 3, 4][:shots]] * 2
    bound = FixedSelector(pointer, bound_to_pools=True)
    assert ids(select_all(bound, queries[:1], [inside], 3)[0].examples) == [5, 3, 4]
    with pytest.raises(PointerError, match=r"'What is 1\?' .* that is not in its pool"):
        select_all(bound, queries, [inside, elsewhere], 3)


def test_a_fixed_pointer_without_enough_other_images_is_refused() -> None:
    pointer = [*examples((5, 3)), example(4, image="image 0")]
    assert ids(FixedSelector(pointer[::-1]).select(example(0).query, [], 2)) == [3, 5]
    with pytest.raises(UserError, match="3 demonstrations are asked for 'What is 0"):
        FixedSelector(pointer).select(example(0).query, [], 3)
