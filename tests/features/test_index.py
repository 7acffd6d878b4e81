"""An index finds the nearest of its examples, whatever was added and removed."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.features import index as index_module
from lever_plus.features.index import NearestIndex, Search
from lever_plus.features.sources import EncodedFeatures
from lever_plus.features.whitening import Array

WIDTH = 8


class Made(EncodedFeatures):
    """Features of unit length that depend only on the text or the image."""

    def __init__(self) -> None:
        """Use no encoder."""

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        return np.stack([unit(getattr(query, part)) for query in queries])

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        return np.stack([unit(getattr(example, part)) for example in examples])


@cache
def unit(text: str) -> Array:
    """Features of texts with the same first letter are near each other."""
    near = np.random.default_rng(ord(text[0])).normal(size=WIDTH)
    row = near + 0.4 * np.random.default_rng(list(text.encode())).normal(size=WIDTH)
    return (row / np.linalg.norm(row)).astype(np.float32)


def examples(first: int, count: int) -> dict[int, Example]:
    return {
        i: Example(f"{chr(97 + i % 7)}{i}.png", f"{chr(97 + i % 26)} {i}?", "a", question_id=i)
        for i in range(first, first + count)
    }


def expected(held: dict[int, Example], query: Query, count: int, *parts: str) -> list[int]:
    def cosine(number: int) -> float:
        example = held[number]
        pairs = [(getattr(example, part), getattr(query, part)) for part in parts]
        return float(sum(np.float32(unit(a) @ unit(b)) for a, b in pairs))

    return sorted(held, key=lambda number: (-cosine(number), number))[:count]


def filled(held: dict[int, Example], similarity: str, search: Search) -> NearestIndex:
    index = NearestIndex(Made(), similarity, search)
    index.add(list(held), list(held.values()))
    return index


@pytest.mark.invariant
@pytest.mark.parametrize(
    ("similarity", "parts"), [("sttr", ("question",)), ("mixed", ("question", "image"))]
)
def test_the_nearest_are_found_after_any_change(similarity: str, parts: tuple[str, ...]) -> None:
    held = examples(1, 60)
    index = filled(held, similarity, "exact")
    for first in (100, 200):
        more = examples(first, 40)
        index.add(list(more), list(more.values()))
        held |= more
        gone = list(held)[::3]
        index.remove([*gone, 999_999])
        held = {number: example for number, example in held.items() if number not in gone}
        for query in (Query("b.png", "b 3?"), Query("c.png", "q 7?")):
            assert index.nearest(query, 9).tolist() == expected(held, query, 9, *parts)
    assert len(index.nearest(query, 1000)) == len(held)


def test_equals_come_in_the_order_in_which_they_were_added() -> None:
    same = {n: Example("a.png", "same?", "a", question_id=n) for n in (5, 3, 9, 1)}
    index = filled(same, "sttr", "exact")
    assert index.nearest(Query("q.png", "same?"), 3).tolist() == [5, 3, 9]


def test_an_empty_index_finds_nothing() -> None:
    index = NearestIndex(Made(), "sttr")
    assert index.nearest(Query("q.png", "a?"), 3).tolist() == []
    index.remove([1])
    index.add([4], [Example("a.png", "b?", "a")])
    index.remove([4])
    assert index.nearest(Query("q.png", "a?"), 3).tolist() == []


def test_an_approximate_index_finds_most_and_keeps_its_cells_as_long_as_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_module, "SMALLEST", 500)
    held, made = examples(1, 1500), []
    make = index_module.made_cells

    def counted(vectors: Array, numbers: index_module.Numbers) -> object:
        made.append(len(vectors))
        return make(vectors, numbers)

    monkeypatch.setattr(index_module, "made_cells", counted)
    index = filled(held, "mixed", "approximate")
    queries = [Query(f"{chr(97 + i % 7)}.png", f"{chr(97 + i % 26)} {i}?") for i in range(40)]

    def found() -> float:
        hits = [
            set(index.nearest(query, 10).tolist())
            & set(expected(held, query, 10, "question", "image"))
            for query in queries
        ]
        return sum(map(len, hits)) / (10 * len(queries))

    assert found() > 0.8
    more = examples(2000, 100)
    index.add(list(more), list(more.values()))
    held |= more
    gone = list(range(1, 300))
    index.remove(gone)
    for number in gone:
        del held[number]
    assert found() > 0.8
    assert all(set(index.nearest(query, 1301).tolist()) == set(held) for query in queries[:2])
    assert made == [1500]
    index.remove(list(held)[:700])
    assert len(index.nearest(queries[0], 5)) == 5
    assert made == [1500, 601]


def test_few_are_searched_exactly_though_nearly_would_do() -> None:
    held = examples(1, 200)
    query = Query("b.png", "b 3?")
    found = filled(held, "sttr", "approximate").nearest(query, 20).tolist()
    assert found == expected(held, query, 20, "question")


def test_what_cannot_be_searched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="similarity 'nearest' is none of sttr"):
        NearestIndex(Made(), "nearest")
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r"an approximate search needs .* search exactly"):
        NearestIndex(Made(), "sttr", "approximate")
