"""The in-context table: which demonstrations are shown, and the shares of right answers."""

from itertools import product

import numpy as np
import pytest

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.house_words.maker import Meaning, word_meaning
from lever_plus.house_words.probe import in_context_table
from lever_plus.house_words.words import ATTRIBUTES, LANGUAGES
from lever_plus.vlm.request import Request

ROWS = [
    *("plain", "none", "half_attribute", "half_language", "two_same_halves", "both_halves"),
    *("both_halves_reversed", "both_halves_then_other", "twin", "two_random"),
]
BOTH = ("attribute", "language")


class Made:
    """Examples of every attribute and language, some in house words, some in plain ones."""

    def __init__(self) -> None:
        """Ask for each pair of attribute and language twelve times: wordings are drawn."""
        self.meanings: dict[int, Meaning] = {}
        self.examples: list[Example] = []
        rng = np.random.default_rng(0)
        for number, (attribute, language, _) in enumerate(
            product(ATTRIBUTES, LANGUAGES, range(12)), start=1
        ):
            meaning = word_meaning(rng, attribute, language, 0.4)
            self.meanings[number] = meaning
            question = meaning.question("{attribute} {style}")
            example = Example("x.png", question, f"{attribute} in {language}", (), number, number)
            self.examples.append(example)


class Reader:
    """Reads each half from the house words that it was shown, and remembers its requests."""

    def __init__(self, made: Made) -> None:
        """Keep what every question means."""
        self.meanings = made.meanings
        self.by_text = {e.question: made.meanings[e.question_id] for e in made.examples}
        self.rows: list[list[Request]] = []

    def answers(self, requests: list[Request], *, description: str) -> list[str]:
        assert description == "in-context table"
        self.rows.append(list(requests))
        return [self.answer(request) for request in requests]

    def meaning(self, request: Request) -> Meaning:
        """The query's meaning; a question in plain words states it."""
        known = self.by_text.get(request.query.question)
        if known is not None:
            return known
        asked = request.query.question
        attribute = next(a for a in ATTRIBUTES if a in asked)
        language = next(x for x in LANGUAGES if x.capitalize() in asked)
        return Meaning(attribute, language, attribute, language.capitalize())

    def answer(self, request: Request) -> str:
        asked = self.meaning(request)
        shown = [self.meanings[e.question_id] for e in request.demonstrations]
        for half in asked.needs:
            told = {getattr(m, half) for m in shown if half in m.needs}
            if told != {getattr(asked, half)}:
                return "?"
        return f"{asked.attribute} in {asked.language}"


@pytest.fixture
def made() -> Made:
    return Made()


def table(reader: Reader, made: Made, count: int = 60) -> dict[str, float]:
    return in_context_table(reader, made.examples, made.examples, made.meanings, count, seed=1)


def test_the_table_has_the_shares_that_a_reader_of_the_meanings_gives(made: Made) -> None:
    found = table(Reader(made), made)
    assert list(found) == ROWS
    right = {"plain", "both_halves", "both_halves_reversed", "twin"}
    wrong = {"none", "half_attribute", "half_language", "two_same_halves", "both_halves_then_other"}
    assert {row for row, share in found.items() if share == 1} == right
    assert {row for row, share in found.items() if share == 0} == wrong
    assert 0 < found["two_random"] < 0.5
    assert table(Reader(made), made) == found


def kinds_of(reader: Reader, request: Request) -> tuple[str, ...]:
    """Return the house words of every demonstration, and what it shares with the query."""
    asked = reader.meaning(request)
    found = []
    for example in request.demonstrations:
        shown = reader.meanings[example.question_id]
        halves = [half for half in BOTH if getattr(shown, half) == getattr(asked, half)]
        shared = [half for half in halves if half in shown.needs]
        found.append(f"{'+'.join(shown.needs)} shares {'+'.join(shared) or 'nothing'}")
    return tuple(found)


def test_every_row_shows_what_its_name_says(made: Made) -> None:
    reader = Reader(made)
    table(reader, made)
    asked = dict(zip(ROWS, reader.rows, strict=True))
    assert {len(rows) for rows in asked.values()} == {60}
    for row, requests in asked.items():
        needs = () if row == "plain" else BOTH
        assert {reader.meaning(request).needs for request in requests} == {needs}
        for request in requests:
            assert len(set(request.demonstrations)) == len(request.demonstrations)
    half_a, half_l = "attribute shares attribute", "language shares language"
    both, other = (
        "attribute+language shares attribute+language",
        "attribute+language shares nothing",
    )
    expected = {
        "plain": {()},
        "none": {()},
        "half_attribute": {(half_a,)},
        "half_language": {(half_l,)},
        "two_same_halves": {(half_a, half_a), (half_l, half_l)},
        "both_halves": {(half_a, half_l)},
        "both_halves_reversed": {(half_l, half_a)},
        "both_halves_then_other": {(half_a, half_l, other)},
        "twin": {(both,)},
    }
    for row, kinds in expected.items():
        assert {kinds_of(reader, request) for request in asked[row]} == kinds
    same = [kinds_of(reader, request) for request in asked["two_same_halves"]]
    assert same.count((half_a, half_a)) == 30
    assert len({kinds_of(reader, request) for request in asked["two_random"]}) > 10
    assert {len(request.demonstrations) for request in asked["two_random"]} == {2}


def test_a_demonstration_that_does_not_exist_is_named_instead_of_looked_for_without_end(
    made: Made,
) -> None:
    house = next(e for e in made.examples if made.meanings[e.question_id].in_house_words)
    mine = made.meanings[house.question_id]
    others = [
        e
        for e in made.examples
        if made.meanings[e.question_id].needs != ("attribute",)
        or made.meanings[e.question_id].attribute != mine.attribute
    ]
    with pytest.raises(UserError, match=r"of kind 'attribute' .* data\.source\.train"):
        in_context_table(Reader(made), [house], others, made.meanings, 1, seed=1)
    one = next(e for e in made.examples if e not in others)
    with pytest.raises(UserError, match=r"of kind 'attribute' .* data\.source\.train"):
        in_context_table(Reader(made), [house], [*others, one], made.meanings, 2, seed=1)


def test_a_dev_split_without_house_words_is_refused(made: Made) -> None:
    plain = [e for e in made.examples if not made.meanings[e.question_id].needs]
    with pytest.raises(UserError, match=r"questions in house words, .* data\.source\.dev"):
        in_context_table(Reader(made), plain, plain, made.meanings, 1, seed=1)
