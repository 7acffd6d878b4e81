"""Baselines choose from the pool, by what they say they choose by."""

import numpy as np
import pytest

from lever_plus.data.pool import Pools
from lever_plus.embedding.encoder import Embeddings
from lever_plus.evaluation.baselines import NEAREST, nearest_pointers, random_pointers

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
    return Embeddings(rows, unit, unit, "encoder")


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


def test_nothing_but_question_and_image_is_compared() -> None:
    assert {part for parts in NEAREST.values() for part in parts} == {"question", "image"}
