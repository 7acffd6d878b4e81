"""What a page is about: questions to pick from, and what may be shown before them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lever_plus.data.examples import Example

QUESTIONS: Final = 12
"""Questions to pick from."""


@dataclass(frozen=True)
class World:
    """What can be asked about, and what may be shown.

    Attributes:
        name: What the data are, for the page's head.
        pool: What may be shown before a question of the user's own.
        gallery: Questions to pick from, with their true answers where they are known.
        pools: {question_id: the pool} of questions of the gallery that have one of their own.
        meanings: {question_id: what it really asks}, of the embedded data set.
    """

    name: str
    pool: Sequence[Example]
    gallery: Sequence[Example] = ()
    pools: Mapping[int, Sequence[Example]] = field(default_factory=dict)
    meanings: Mapping[int, str] = field(default_factory=dict)


def own_world(name: str, pool: Sequence[Example]) -> World:
    """Return a world of a user's own: the first questions of the pool are those to pick from.

    Before one of them the others are shown: never an example with its own image.
    """
    return World(name, pool, pool[:QUESTIONS])
