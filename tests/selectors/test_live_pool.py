"""A live pool: a selector chooses the same from it as from a list of the same examples."""

import shutil
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.features.neighbours import ranked
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import LivePool
from tiny_world import World
from trained_selector import SHOTS


@pytest.fixture
def examples(world: World) -> list[Example]:
    return world.splits["train"]


@pytest.fixture
def queries(world: World) -> list[Query]:
    """Queries that are new, and some whose image is in the pool."""
    train, test = world.splits["train"], world.splits["test"]
    own = [replace(train[place].query, question="What is here?") for place in (0, 3, 7)]
    return [example.query for example in test] + own


def chosen(
    selector: LearnedSelector, queries: Sequence[Query], pool: Sequence[Example]
) -> list[tuple[Example, ...]]:
    found = selector.select_all(queries, [pool] * len(queries), SHOTS)
    return [selection.examples for selection in found]


def of(pool: LivePool, queries: Sequence[Query]) -> list[tuple[Example, ...]]:
    return [selection.examples for selection in pool.select_all(queries, SHOTS)]


@pytest.mark.invariant
def test_it_chooses_as_the_selector_does_after_any_change(
    trained: LearnedSelector, examples: list[Example], queries: list[Query]
) -> None:
    pool = LivePool(trained, examples[:20])
    held = examples[:20]
    assert of(pool, queries) == chosen(trained, queries, held)
    pool.add(examples[20:])
    assert list(pool.examples) == examples
    assert of(pool, queries) == chosen(trained, queries, examples)
    gone = {example.question_id for example in examples[1::2]}
    pool.remove(gone)
    held = [example for example in examples if example.question_id not in gone]
    assert list(pool.examples) == held
    found = of(pool, queries)
    assert found == chosen(trained, queries, held)
    assert found != chosen(trained, queries, examples)
    shown = pool.select(queries[0], SHOTS)
    assert tuple(shown) == found[0]
    first, (second,) = (
        pool.select_all(queries, SHOTS)[0],
        trained.select_all([queries[0]], [held], SHOTS),
    )
    assert first.log_probs == pytest.approx(second.log_probs, abs=1e-5)


@pytest.mark.parametrize("similarity", ["sttr", "mixed"])
def test_of_a_large_pool_it_sees_the_nearest_neighbours(
    similarity: str, trained: LearnedSelector, examples: list[Example], queries: list[Query]
) -> None:
    pool = LivePool(trained, examples, candidates=9, similarity=similarity)
    for query, found in zip(queries, of(pool, queries), strict=True):
        allowed = [e for e in examples if e.image_sha256 != query.image_sha256]
        near = sorted(ranked(similarity, trained.features, query, allowed)[:9])
        assert [found] == chosen(trained, [query], [allowed[place] for place in near])
    assert of(pool, queries) != chosen(trained, queries, examples)
    assert of(LivePool(trained, examples, candidates=None), queries) == chosen(
        trained, queries, examples
    )
    few = LivePool(trained, examples, candidates=1)
    assert len(set(few.select(queries[0], SHOTS))) == SHOTS


def test_a_folder_keeps_it_with_its_order_and_numbers(
    trained: LearnedSelector, examples: list[Example], queries: list[Query], tmp_path: Path
) -> None:
    kept = LivePool(trained, examples, folder=tmp_path / "pool")
    kept.remove([examples[4].question_id])
    number = kept.add([replace(examples[4], question_id=0)])[0]
    assert number not in {example.question_id for example in examples}
    again = LivePool(trained, examples, folder=tmp_path / "pool")
    assert again.examples == kept.examples
    assert [e.question_id for e in again.examples[-1:]] == [number]
    assert of(again, queries) == of(kept, queries) != of(LivePool(trained, examples[:9]), queries)


def test_a_folder_can_be_moved_with_the_images_in_it(
    trained: LearnedSelector, examples: list[Example], tmp_path: Path
) -> None:
    image = tmp_path / "pool" / "images" / "one.png"
    image.parent.mkdir(parents=True)
    shutil.copy(examples[0].image, image)
    LivePool(trained, [Example(str(image), "What?", "red")], folder=tmp_path / "pool")
    (tmp_path / "pool").rename(tmp_path / "moved")
    (found,) = LivePool(trained, folder=tmp_path / "moved").examples
    assert found.image == str(tmp_path / "moved" / "images" / "one.png")
    assert found.image_sha256 == examples[0].image_sha256


def test_what_is_there_already_is_not_added_again(
    trained: LearnedSelector, examples: list[Example]
) -> None:
    pool = LivePool(trained, examples)
    known = [example.question_id for example in examples]
    assert pool.add([replace(example, question_id=0) for example in examples]) == known
    other = replace(examples[0], answer="another")
    fresh, twice = pool.add([other, other])
    assert fresh == twice == max(known) + 1
    assert len(pool.examples) == len(examples) + 1


@pytest.mark.invariant
def test_threads_choose_from_whole_pools_while_it_changes(
    trained: LearnedSelector, examples: list[Example], queries: list[Query]
) -> None:
    fixed, moving = examples[:12], examples[12:24]
    pool = LivePool(trained, fixed, candidates=8)
    numbers = {example.question_id for example in fixed + moving}

    def choose(place: int) -> bool:
        found = pool.select(queries[place % len(queries)], SHOTS)
        return len(set(found)) == SHOTS and all(e.question_id in numbers for e in found)

    def change(example: Example) -> None:
        for _ in range(5):
            pool.remove(pool.add([example]))

    with ThreadPoolExecutor(6) as workers:
        changes = [workers.submit(change, example) for example in moving]
        assert all(workers.map(choose, range(120)))
        for each in changes:
            each.result()
    assert list(pool.examples) == fixed


def test_what_cannot_be_shown_is_refused_and_nothing_is_added(
    trained: LearnedSelector, examples: list[Example], tmp_path: Path
) -> None:
    pool = LivePool(trained, examples[:4], folder=tmp_path / "pool")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no image")
    for bad, said in (
        (Example("gone.png", "What?", "red"), "image gone.png cannot be read"),
        (Example(str(damaged), "What?", "red"), r"damaged.png cannot be read"),
        (replace(examples[5], answer="<image>"), "VLMs read as a special token"),
        (replace(examples[5], question=" "), "has no text"),
    ):
        with pytest.raises(UserError, match=said):
            pool.add([examples[6], bad])
    assert list(pool.examples) == examples[:4]
    assert LivePool(trained, folder=tmp_path / "pool").examples == pool.examples
    with pytest.raises(UserError, match="the pool has no example 123456: none was removed"):
        pool.remove([examples[0].question_id, 123456])
    assert list(pool.examples) == examples[:4]


def test_too_small_a_pool_is_explained(trained: LearnedSelector, examples: list[Example]) -> None:
    query = replace(examples[0].query, question="What else?")
    pool = LivePool(trained, examples[:SHOTS])
    with pytest.raises(UserError, match="the pool has 1 examples with another image"):
        pool.select(query, SHOTS)
    with pytest.raises(UserError, match="can pick 1 to 2 demonstrations, but 3 were asked for"):
        LivePool(trained, examples).select(query, 3)
    with pytest.raises(UserError, match="candidates is 0"):
        LivePool(trained, examples, candidates=0)


def test_two_that_write_to_one_folder_do_not_overwrite_each_other(
    trained: LearnedSelector, examples: list[Example], tmp_path: Path
) -> None:
    one, two = (LivePool(trained, folder=tmp_path / "pool") for _ in range(2))
    one.add(examples[:1])
    with pytest.raises(UserError, match="another process has added .* open it again"):
        two.add(replace(e, question_id=examples[0].question_id) for e in examples[1:2])
    assert two.examples == ()
    assert list(LivePool(trained, folder=tmp_path / "pool").examples) == examples[:1]


def test_what_is_no_pool_is_left_alone(trained: LearnedSelector, tmp_path: Path) -> None:
    file = tmp_path / "other" / "pool.sqlite"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE mine (number INTEGER)")
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"pool\.sqlite is not a pool of Lever-Plus: name another"):
        LivePool(trained, folder=file.parent)
    assert file.read_bytes() == before
    file.write_bytes(b"no database at all, but long enough to be read as if it were one" * 20)
    with pytest.raises(UserError, match="can't be used .*not a database"):
        LivePool(trained, folder=file.parent)
    (tmp_path / "a file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="can't be used"):
        LivePool(trained, folder=tmp_path / "a file")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE example SET answers = '{'", "example 1.*: "),
        ("UPDATE example SET answers = '[1]'", "answers.0: input should be a valid string"),
        ("UPDATE example SET question_id = -4", "question_id"),
        ("UPDATE example SET image = x'00'", "image: input should be a valid string"),
        ("DROP TABLE example", "is not a pool of Lever-Plus"),
        ("CREATE TRIGGER t AFTER INSERT ON example BEGIN SELECT 1; END", "is not a pool of Lever"),
    ],
)
def test_a_damaged_pool_is_refused(
    damage: str, said: str, trained: LearnedSelector, examples: list[Example], tmp_path: Path
) -> None:
    LivePool(trained, examples[:3], folder=tmp_path / "pool")
    with closing(sqlite3.connect(tmp_path / "pool" / "pool.sqlite")) as connection, connection:
        connection.execute(damage + (" WHERE place = 1" if damage.startswith("UPDATE") else ""))
    with pytest.raises(UserError, match=said):
        LivePool(trained, folder=tmp_path / "pool")
