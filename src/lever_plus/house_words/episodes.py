"""Few-shot episodes: interleaved examples in which the house words get new meanings every time.

Because no house word keeps its meaning from one episode to the next, the VLM can only learn to
read attribute and language from the demonstrations before it, never from the word.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lever_plus.house_words.cards import Card
from lever_plus.house_words.maker import Meaning, draw_meaning, word_meaning
from lever_plus.house_words.words import (
    ATTRIBUTES,
    HOUSE_ATTRIBUTES,
    HOUSE_STYLES,
    LANGUAGES,
    PHRASINGS,
)


@dataclass(frozen=True, slots=True)
class Item:
    """One training example in memory: the row of its card, its question and its answer."""

    card: int
    question: str
    answer: str


def reshuffled(
    rng: np.random.Generator, table: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Give the house words of a table to its meanings anew, as many to each as before."""
    words = rng.permutation([word for group in table.values() for word in group])
    parts = np.array_split(words, len(table))
    return {meaning: tuple(map(str, part)) for meaning, part in zip(table, parts, strict=True)}


def plain_item(rng: np.random.Generator, cards: Sequence[Card]) -> Item:
    """Draw a question in plain words only."""
    return _item(rng, cards, draw_meaning(rng, plain_share=1.0))


def episode(
    rng: np.random.Generator,
    cards: Sequence[Card],
    length: int,
    plain_share: float,
    theme_share: float,
) -> list[Item]:
    """Draw an episode.

    Args:
        rng: Source of randomness.
        cards: What the examples may show.
        length: Examples in the episode; each can be answered from those before it.
        plain_share: Probability that a word is plain.
        theme_share: Probability that an example asks for the episode's attribute, and, drawn
            apart, in the episode's language; else both are uniform.
    """
    attributes, styles = reshuffled(rng, HOUSE_ATTRIBUTES), reshuffled(rng, HOUSE_STYLES)
    theme_attribute, theme_language = str(rng.choice(ATTRIBUTES)), str(rng.choice(LANGUAGES))
    items = []
    for _ in range(length):
        same_attribute, same_language = rng.random(2) < theme_share
        attribute = theme_attribute if same_attribute else str(rng.choice(ATTRIBUTES))
        language = theme_language if same_language else str(rng.choice(LANGUAGES))
        meaning = word_meaning(rng, attribute, language, plain_share, attributes, styles)
        items.append(_item(rng, cards, meaning))
    return items


def _item(rng: np.random.Generator, cards: Sequence[Card], meaning: Meaning) -> Item:
    row = int(rng.integers(len(cards)))
    question = meaning.question(str(rng.choice(PHRASINGS)))
    return Item(card=row, question=question, answer=meaning.answer(cards[row]))
