"""Whether a server's answers depend on its state: the same requests cold, warm and shuffled.

A server that batches and caches may answer a request otherwise after others, or beside them. Where
it does, an answer is one of several that the server gives, and a run is not repeated to the letter.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

Value = TypeVar("Value", str, float)
Ask = Callable[[Sequence[int], int], Awaitable[dict[int, Value]]]
"""Asks for requests by number, in order; so many at once."""
MOST: Final = 50
ONE_OF: Final = 30
"""Requests of a run for each that is asked three times more: a tenth of its cost at most."""
SAME: Final = 1e-3
"""Nats by which equal likelihoods may differ."""


class Dependence(NamedTuple):
    """How many of some requests were answered otherwise in another state of the server."""

    otherwise: int
    asked: int

    def __str__(self) -> str:
        """Return it as the middle of a sentence."""
        return f"{self.otherwise} of {self.asked}"


def chosen(count: int) -> list[int]:
    """Return the numbers of those among `count` requests that are tried; none of a few."""
    most = min(MOST, count // ONE_OF)
    return [number * count // most for number in range(most)] if most > 1 else []


async def tried(ask: Ask[Value], numbers: Sequence[int], at_once: int) -> Dependence:
    """Ask the same requests cold and alone, warm and side by side, and in another order.

    Args:
        ask: Asks the server; nobody has asked it so before.
        numbers: Requests.
        at_once: Requests side by side, after the first time.
    """
    first = await ask(numbers, 1)
    shuffled = random.Random(0).sample(list(numbers), len(numbers))
    others = [await ask(order, at_once) for order in (numbers, shuffled)]
    differ = [any(not _same(first[n], other[n]) for other in others) for n in numbers]
    return Dependence(sum(differ), len(numbers))


def _same(one: str | float, other: str | float) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, abs_tol=SAME, rel_tol=0)
