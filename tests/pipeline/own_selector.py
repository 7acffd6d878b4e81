"""A selector of a user's own, as `evaluate.selectors` names it."""

from collections.abc import Sequence

from lever_plus.data.examples import Example, Query
from lever_plus.selectors.registry import Context


class FirstOfPool:
    """Shows the first examples of a pool."""

    def select(self, _query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        return list(pool[:shots])


def first_of_pool(_context: Context) -> FirstOfPool:
    return FirstOfPool()
