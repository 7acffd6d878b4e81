"""The in-context table: right answers by a rule over the hidden meanings."""

import pytest

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.house_words.maker import Meaning, read_meanings
from lever_plus.house_words.probe import in_context_table
from lever_plus.vlm.request import Request
from tiny_world import World


class Reader:
    """Knows the meanings: it answers a house-word question right after one of the same meaning."""

    def __init__(self, world: World, meanings: dict[int, Meaning]) -> None:
        """Keep what every question means."""
        self.of = {e.query: (e, meanings[e.question_id]) for e in world.examples.values()}
        self.meanings = meanings

    def answers(self, requests: list[Request], *, description: str) -> list[str]:
        return [self.answer(request) for request in requests if description]

    def answer(self, request: Request) -> str:
        example, meaning = self.of[request.query]
        shown = [self.meanings[e.question_id] for e in request.demonstrations]
        told = any(
            (m.attribute, m.language) == (meaning.attribute, meaning.language) for m in shown
        )
        return example.answer if told or meaning.in_plain_words else "?"


@pytest.fixture
def meanings(world: World) -> dict[int, Meaning]:
    return read_meanings(world.folder)


def has_halves(example: Example, others: list[Example], meanings: dict[int, Meaning]) -> bool:
    """Whether the rules find demonstrations that share one of the two words' meanings."""
    mine = meanings[example.question_id]
    pairs = {(meanings[e.question_id].attribute, meanings[e.question_id].language) for e in others}
    attribute = any(a == mine.attribute and lang != mine.language for a, lang in pairs)
    language = any(a != mine.attribute and lang == mine.language for a, lang in pairs)
    return mine.in_house_words and attribute and language


def test_the_table_has_the_shares_that_a_reader_of_the_meanings_gives(
    world: World, meanings: dict[int, Meaning]
) -> None:
    everything = list(world.examples.values())
    plain = [e for e in everything if meanings[e.question_id].in_plain_words]
    queries = [*plain, *(e for e in everything if has_halves(e, everything, meanings))]
    vlm = Reader(world, meanings)
    table = in_context_table(vlm, queries, everything, meanings, 40, seed=1)
    assert table["plain words"] == 1
    assert table["no demonstration"] == table["complementary halves"] == 0
    assert table["one right"] == table["right, then random"] == table["four right"] == 1
    assert table["two random"] < 1


def test_a_demonstration_that_does_not_exist_is_named_instead_of_looked_for_without_end(
    world: World, meanings: dict[int, Meaning]
) -> None:
    every = list(world.examples.values())
    plain = next(e for e in every if meanings[e.question_id].in_plain_words)
    house = next(e for e in every if meanings[e.question_id].in_house_words)
    attribute = meanings[house.question_id].attribute
    others = [e for e in world.splits["train"] if meanings[e.question_id].attribute != attribute]
    vlm = Reader(world, meanings)
    with pytest.raises(UserError, match=r"demonstration of kind 'right' .* data\.source\.train"):
        in_context_table(vlm, [house, plain], others, meanings, 1, seed=1)


def test_a_dev_split_without_house_words_is_refused(
    world: World, meanings: dict[int, Meaning]
) -> None:
    plain = [e for e in world.examples.values() if meanings[e.question_id].in_plain_words]
    with pytest.raises(UserError, match=r"needs questions in house words .* data\.source\.dev"):
        in_context_table(Reader(world, meanings), plain, plain, meanings, 1, seed=1)
