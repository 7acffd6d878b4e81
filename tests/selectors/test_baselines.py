"""Baselines choose from the pool, by what they say they choose by."""

import numpy as np
import pytest

from lever_plus.data.pools import Pools
from lever_plus.features.encoder import Embeddings
from lever_plus.features.similarities import SIMILARITIES
from lever_plus.selectors.baselines import (
    diverse_pointers,
    fixed_candidates,
    nearest_pointers,
    random_pointers,
)

POOLS = Pools({0: (1, 2, 3), 9: (3, 2, 1)}, "hash")
ANGLES = {
    "question": {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 9: 0.3},
    "image": {0: 0.0, 1: 0.3, 2: 0.2, 3: 0.1, 9: 0.0},
    "answer": dict.fromkeys((0, 1, 2, 3, 9), 0.0),
}


@pytest.fixture
def embeddings() -> Embeddings:
    rows = {0: 0, 1: 1, 2: 2, 3: 3, 9: 4}
    unit = {
        part: np.array([[np.cos(a), np.sin(a)] for a in angles.values()], dtype=np.float32)
        for part, angles in ANGLES.items()
    }
    return Embeddings(rows, unit, np.empty((5, 0)), 0, "encoder")


def test_nearest_by_question_and_by_image_go_opposite_ways(embeddings: Embeddings) -> None:
    assert nearest_pointers("sttr", embeddings, POOLS, [0, 9], 3) == [(1, 2, 3), (3, 2, 1)]
    assert nearest_pointers("siir", embeddings, POOLS, [0], 2) == [(3, 2)]
    assert nearest_pointers("mixed", embeddings, POOLS, [0], 1) == [(2,)]


def test_random_pointers_are_distinct_seeded_and_from_the_pool() -> None:
    ids = tuple(range(10, 30))
    pools = Pools(dict.fromkeys(range(5), ids), "hash")
    drawn = random_pointers(pools, list(range(5)), 4, seed=1)
    assert drawn == random_pointers(pools, list(range(5)), 4, seed=1)
    assert drawn != random_pointers(pools, list(range(5)), 4, seed=2)
    assert all(len(set(p)) == 4 and set(p) <= set(ids) for p in drawn)


def test_the_true_answer_is_never_compared() -> None:
    parts = {part for pairs in SIMILARITIES.values() for pair in pairs for part in pair}
    assert parts == {"question", "image"}


def test_sitr_compares_the_query_s_image_with_the_candidate_s_text(embeddings: Embeddings) -> None:
    """Query 9 has its image at angle 0: the nearest text is that of example 1."""
    assert nearest_pointers("sitr", embeddings, POOLS, [9], 3) == [(1, 2, 3)]


def test_diverse_pointers_start_near_and_then_go_away_from_what_they_have() -> None:
    angles = {0: 0.0, 1: 0.1, 2: 0.11, 3: 0.6}
    unit = np.array([[np.cos(a), np.sin(a)] for a in angles.values()], dtype=np.float32)
    embeddings = Embeddings({i: i for i in angles}, {"question": unit}, unit, 2, "encoder")
    pools = Pools({0: (1, 2, 3)}, "hash")
    assert diverse_pointers(embeddings, pools, [0], 2, relevance=1.0) == [(1, 2)]
    assert diverse_pointers(embeddings, pools, [0], 2, relevance=0.3) == [(1, 3)]


def test_a_fixed_pointer_comes_from_what_all_pools_share_if_they_share_enough() -> None:
    shared = Pools({0: (1, 2, 3, 4), 1: (2, 3, 4, 5)}, "hash")
    drawn = fixed_candidates(shared, [0, 1], 2, count=20, seed=0)
    assert {i for pointer in drawn for i in pointer} == {2, 3, 4}
    apart = Pools({0: (1, 2), 1: (3, 4)}, "hash")
    drawn = fixed_candidates(apart, [0, 1], 2, count=20, seed=0)
    assert {i for pointer in drawn for i in pointer} == {1, 2, 3, 4}
    assert all(len(set(pointer)) == 2 for pointer in drawn)
