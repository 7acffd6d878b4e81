"""Pools hold example ids; nothing outside a pool can be pointed at."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from lever_plus.data.examples import Example
from lever_plus.data.pools import (
    Nearest,
    PoolPolicy,
    check_pools,
    draw_pools,
    make_scarce,
    read_pools,
    write_pools,
)
from lever_plus.errors import PointerError, UserError


def example(number: int, image: int | None = None) -> Example:
    return Example("x.png", "q?", "a", ("a",) * 10, question_id=number, image_id=image or number)


EXAMPLES = [example(i, image=100 + i // 2) for i in range(40)]
QUERIES = EXAMPLES[:20]


def draw(policy: str, size: int = 8, seed: int = 0) -> dict[int, tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    return draw_pools(QUERIES, EXAMPLES, size, cast(PoolPolicy, policy), rng)


@pytest.mark.parametrize("policy", ["per_query", "shared"])
def test_no_query_and_no_example_with_its_image_is_in_its_pool(policy: str) -> None:
    images = {e.question_id: e.image_id for e in EXAMPLES}
    for query, pool in draw(policy).items():
        assert query not in pool
        assert images[query] not in {images[i] for i in pool}
        assert len(set(pool)) == len(pool) == 8


def test_shared_pools_are_equal_and_per_query_pools_are_not() -> None:
    assert len(set(draw("shared").values())) == 1
    assert len(set(draw("per_query").values())) > 1


def test_pools_of_neighbours_hold_them_first_and_are_filled_at_random() -> None:
    """Mixed pools: a quarter by text, a quarter by image without repeats, the rest at random."""
    ids = [e.question_id for e in EXAMPLES]
    text = Nearest({q.question_id: ids for q in QUERIES}, 3)
    image = Nearest({q.question_id: ids for q in QUERIES}, 2)
    rng = np.random.default_rng(0)
    pools = draw_pools(QUERIES, EXAMPLES, 8, "per_query", rng, {"question": text, "image": image})
    images = {e.question_id: e.image_id for e in EXAMPLES}
    for query, pool in pools.items():
        allowed = [i for i in ids if images[i] != images[query]]
        assert list(pool[:5]) == allowed[:5]
        assert len(set(pool)) == len(pool) == 8
        assert images[query] not in {images[i] for i in pool}
    assert len({pool[5:] for pool in pools.values()}) > 1


def test_equal_seeds_draw_equal_pools() -> None:
    assert draw("per_query") == draw("per_query")
    assert draw("per_query") != draw("per_query", seed=1)


def test_a_pool_larger_than_its_candidates_is_refused() -> None:
    with pytest.raises(UserError, match=r"pool.size is 60 but only"):
        draw("per_query", size=60)


def test_scarce_pools_have_no_twin_and_keep_their_size() -> None:
    twins = {e.question_id: (str(e.question_id % 3),) for e in EXAMPLES}
    pools = draw("per_query")
    rng = np.random.default_rng(0)
    ids = [e.question_id for e in EXAMPLES]
    scarce = make_scarce(pools, twins, ids, 1.0, rng)
    for query, pool in scarce.items():
        assert twins[query] not in {twins[i] for i in pool}
        assert len(set(pool)) == len(pool) == len(pools[query])
        assert query not in pool
    assert make_scarce(pools, twins, ids, 0.0, rng) == pools


def test_twins_are_replaced_as_by_going_through_all_candidates() -> None:
    """The same draws from the same spare examples, in their order."""
    twins = {e.question_id: (str(e.question_id % 3),) for e in EXAMPLES}
    pools, ids = draw("per_query"), [e.question_id for e in EXAMPLES]
    rng, expected = np.random.default_rng(1), {}
    for query, pool in pools.items():
        if rng.random() >= 0.6:
            expected[query] = pool
            continue
        kept = [i for i in pool if twins[i] != twins[query]]
        spare = [c for c in ids if c not in {query, *pool} and twins[c] != twins[query]]
        drawn = rng.choice(len(spare), size=len(pool) - len(kept), replace=False)
        expected[query] = (*kept, *(spare[i] for i in drawn))
    assert make_scarce(pools, twins, ids, 0.6, np.random.default_rng(1)) == expected


def test_the_hash_changes_with_the_order(tmp_path: Path) -> None:
    one = write_pools(tmp_path / "a.jsonl", {1: (2, 3)})
    same = write_pools(tmp_path / "b.jsonl", {1: (2, 3)})
    other = write_pools(tmp_path / "c.jsonl", {1: (3, 2)})
    assert one.sha256 == same.sha256 != other.sha256
    assert read_pools(tmp_path / "a.jsonl") == one


def test_positions_name_the_query_and_the_foreign_id(tmp_path: Path) -> None:
    pools = write_pools(tmp_path / "p.jsonl", {1: (5, 9, 7)})
    assert pools.positions(1, (7, 5)) == [2, 0]
    with pytest.raises(KeyError) as caught:
        pools.positions(1, (7, 0))
    assert isinstance(caught.value, PointerError)
    assert "query 1: example 0" in str(caught.value)


def test_a_pointer_that_repeats_an_example_is_refused(tmp_path: Path) -> None:
    pools = write_pools(tmp_path / "p.jsonl", {1: (5, 9, 7)})
    with pytest.raises(PointerError, match=r"query 1: pointer \(5, 5\) names an example twice"):
        pools.positions(1, (5, 5))
    with pytest.raises(PointerError, match="query 2 has no pool"):
        pools.positions(2, (5,))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": 1, "pool": [2, 3', "line 2 is not valid JSON"),
        ('{"query_id": 1}', "line 2: pool is missing"),
        ('{"query_id": "1", "pool": [2]}', "line 2: query_id: input should be a valid integer"),
        ('{"query_id": 1, "pool": [true]}', "line 2: pool.0: input should be a valid integer"),
        ('{"query_id": 1, "pool": []}', "line 2: pool: tuple should have at least 1 item"),
        ('{"query_id": 0, "pool": [5]}', "line 2: query 0 has a pool already"),
        ('{"query_id": 1, "pool": [2, 2]}', "holds an id twice, or the query"),
        ('{"query_id": 1, "pool": [1, 2]}', "holds an id twice, or the query"),
    ],
)
def test_a_damaged_pool_file_names_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"query_id": 0, "pool": [4]}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        read_pools(path)


def test_pools_that_do_not_fit_the_examples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    splits = {
        "train": [example(i, image=100 + i % 6) for i in range(7)],
        "dev": [example(10, image=10)],
        "test": [example(20, image=20)],
    }
    fits = {0: (1, 2, 3), 10: (2, 3, 4), 20: (5, 4, 1)}
    shared = {0: (1, 2), 1: (0, 2), 10: (0, 1, 2), 20: (0, 1, 2)}
    for pools in (fits, shared):
        check_pools(write_pools(path, pools), splits, path)
    for changes, message in (
        ({30: (1, 2, 3)}, "query 30: no example has that id"),
        ({10: (2, 3, 99)}, "query 10 holds 99, which is not a training example"),
        ({10: (2, 3, 20)}, "query 10 holds 20, which is not a training example"),
        ({0: (1, 2, 6)}, "query 0 holds 6, which shows the query's image"),
        ({10: (2, 3)}, "query 10 has 2 examples, others have 3"),
        ({10: (2, 3, 4, 5)}, "query 0 has 3 examples, others have 4"),
    ):
        with pytest.raises(UserError, match=message):
            check_pools(write_pools(path, fits | changes), splits, path)


def test_twins_that_nothing_can_replace_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"pool\.scarcity: query 0 has 2 exact twins"):
        make_scarce({0: (1, 2)}, {0: ("a",), 1: ("a",), 2: ("a",), 3: ("b",)}, [1, 2, 3], 1.0, rng)
