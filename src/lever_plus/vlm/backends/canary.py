"""Whether a server's answers depend on its state: the same requests are asked three times.

A server that batches and caches may give another answer to a request when it comes after other
requests, or together with them. Then a repeated run can give slightly different results.
"""

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

Value = TypeVar("Value", str, float)
Ask = Callable[[Sequence[int], int], Awaitable[dict[int, Value]]]
"""Asks requests, given their numbers in order and how many at once; returns results by number."""
MOST: Final = 50
"""Largest number of requests that are tried."""
ONE_OF: Final = 30
"""One of so many requests is tried. As it is asked three times, that costs at most a tenth more."""
SAME: Final = 1e-3
"""Log-likelihoods that differ by less, in nats, count as equal."""


class Dependence(NamedTuple):
    """How many of the requests that were tried got different answers."""

    otherwise: int
    asked: int

    def __str__(self) -> str:
        """Return it as the middle of a sentence."""
        return f"{self.otherwise} of {self.asked}"


def chosen(count: int) -> list[int]:
    """Return which of `count` requests are tried, by number; none if there are only a few."""
    most = min(MOST, count // ONE_OF)
    return [number * count // most for number in range(most)] if most > 1 else []


async def tried(ask: Ask[Value], numbers: Sequence[int], at_once: int) -> Dependence:
    """Ask the same requests one by one, then several at once, then in another order.

    Args:
        ask: Asks the server; nothing of these requests may be in the server's cache yet.
        numbers: Numbers of the requests.
        at_once: How many requests are asked at once, after the first time.
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
