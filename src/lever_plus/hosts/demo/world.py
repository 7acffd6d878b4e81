"""The data behind a page: questions to pick from, and the pools of demonstrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lever_plus.data.examples import Example

QUESTIONS: Final = 12
"""How many questions there are to pick from."""


@dataclass(frozen=True)
class World:
    """The questions and demonstrations of a page.

    Attributes:
        name: Description of the data, for the head of the page.
        pool: Examples that may be shown before a user's own question.
        gallery: Questions to pick from, with their true answers if these are known.
        pools: {question_id: pool} for questions of the gallery that have a pool of their own.
        meanings: {question_id: what the question means}, for the embedded data set.
    """

    name: str
    pool: Sequence[Example]
    gallery: Sequence[Example] = ()
    pools: Mapping[int, Sequence[Example]] = field(default_factory=dict)
    meanings: Mapping[int, str] = field(default_factory=dict)


def own_world(name: str, pool: Sequence[Example]) -> World:
    """Return the world of a user's own pool, whose first questions are those to pick from.

    The rest of the pool may be shown before such a question, except examples with its image.
    """
    return World(name, pool, pool[:QUESTIONS])
