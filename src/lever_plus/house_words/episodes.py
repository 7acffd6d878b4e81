"""Few-shot episodes: sequences of examples in which the house words have new meanings each time.

An episode has one hidden attribute and one hidden language. Its last question, in house words, can
only be answered from the examples before it: some explain the attribute, others the language, so
the two halves must be combined. Because no house word keeps its meaning from one episode to the
next, the VLM cannot learn what a word means, only how to read its meaning from examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lever_plus.house_words.cards import Card
from lever_plus.house_words.maker import Meaning, draw_meaning
from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    PHRASINGS,
    plain_style,
)

Kind = Literal["attribute", "language", "both", "plain", "other"]
"""What an example explains about the hidden meaning of its episode. `plain` explains nothing, and
`other` has house words for another attribute and language."""


@dataclass(frozen=True, slots=True)
class Item:
    """One training example in memory: the row of its card, its question and its answer."""

    card: int
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class KindShares:
    """How often the examples before the last one are of each kind.

    Attributes:
        half: Share of examples that explain only the attribute, and also of those that explain only
            the language.
        both: Share of examples that explain both.
        other: Share of examples with house words for another attribute and language. All others are
            plain.
    """

    half: float
    both: float
    other: float

    def draw(self, rng: np.random.Generator, length: int) -> list[Kind]:
        """Draw the kinds of an episode's `length` examples; the last is always "both"."""
        kinds: list[Kind] = ["attribute", "language", "both", "other", "plain"]
        shares = np.array([self.half, self.half, self.both, self.other, 0.0])
        shares[-1] = max(0.0, 1.0 - shares.sum())
        drawn = rng.choice(len(kinds), length - 1, p=shares / shares.sum())
        return [*(kinds[i] for i in drawn), "both"]


def reshuffled(
    rng: np.random.Generator, table: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Distribute the house words of a table among its meanings at random, evenly."""
    words = rng.permutation([word for group in table.values() for word in group])
    parts = np.array_split(words, len(table))
    return {meaning: tuple(map(str, part)) for meaning, part in zip(table, parts, strict=True)}


def plain_item(rng: np.random.Generator, cards: Sequence[Card]) -> Item:
    """Draw a card and a question in plain words."""
    return _item(rng, cards, draw_meaning(rng, plain_share=1.0))


def episode(rng: np.random.Generator, cards: Sequence[Card], kinds: Sequence[Kind]) -> list[Item]:
    """Draw an episode: one hidden attribute and language, and an example of each kind in order."""
    attributes, styles = reshuffled(rng, HOUSE_ATTRIBUTES), reshuffled(rng, HOUSE_STYLES)
    attribute, language = str(rng.choice(ATTRIBUTES)), str(rng.choice(LANGUAGES))
    items = []
    for kind in kinds:
        asked, spoken = attribute, language
        if kind == "other":
            asked = str(rng.choice([each for each in ATTRIBUTES if each != attribute]))
            spoken = str(rng.choice([each for each in LANGUAGES if each != language]))
        if kind in ("language", "plain"):
            asked = str(rng.choice(ATTRIBUTES))
        if kind in ("attribute", "plain"):
            spoken = str(rng.choice(LANGUAGES))
        meaning = Meaning(
            attribute=asked,
            language=spoken,
            attribute_word=asked
            if kind in ("language", "plain")
            else str(rng.choice(attributes[asked])),
            style_word=plain_style(spoken)
            if kind in ("attribute", "plain")
            else str(rng.choice(styles[spoken])),
        )
        items.append(_item(rng, cards, meaning))
    return items


def _item(rng: np.random.Generator, cards: Sequence[Card], meaning: Meaning) -> Item:
    row = int(rng.integers(len(cards)))
    question = meaning.question(str(rng.choice(PHRASINGS)))
    return Item(card=row, question=question, answer=meaning.answer(cards[row]))
