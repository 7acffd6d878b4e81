"""What a selector is: anything that chooses demonstrations for a query from a pool.

A user's own selector needs only the method `select`. The methods for batches are for speed, and for
selectors whose choice depends on the number of demonstrations; if a selector lacks them, `select`
is called.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple, Protocol, runtime_checkable

from lever_plus.data.examples import Example, Query, hashed, hashed_query
from lever_plus.errors import PointerError, UserError

_NUMBER: Final = attrgetter("question_id")


class Selection(NamedTuple):
    """Demonstrations in the order of the prompt, and the log-probability of each pick.

    Attributes:
        examples: The demonstrations.
        log_probs: The log-probability of each; empty if no policy picked them.
    """

    examples: tuple[Example, ...]
    log_probs: tuple[float, ...] = ()


class Selector(Protocol):
    """Chooses demonstrations."""

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> Sequence[Example]:
        """Return `shots` distinct examples of the pool, in the order in which they are shown.

        None of them shows the query's image. A selector whose attribute `stops` is true may return
        fewer, or none.
        """
        ...


@runtime_checkable
class SelectsBatches(Protocol):
    """A selector that is faster if it gets many queries at once."""

    def select_all(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the selection for each query from the pool at the same place."""
        ...


@runtime_checkable
class SelectsEachShot(Protocol):
    """A selector whose choice of k demonstrations need not be the first k of a longer choice."""

    def select_each_shot(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[list[Selection]]:
        """Return the selections of 1, 2, ..., `shots` demonstrations, each for all queries."""
        ...


class BatchSelector(ABC):
    """Base of the project's selectors: an example with the query's image is never chosen."""

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return `shots` distinct examples of the pool, in the order in which they are shown.

        Raises:
            UserError: The pool is too small, or holds an example twice.
        """
        return list(self.select_all([query], [pool], shots)[0].examples)

    def select_all(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return a selection for each query from its pool; errors as `select`."""
        asked, allowed = allowed_pools(queries, pools, shots)
        return self.choose(asked, allowed, shots) if asked else []

    @abstractmethod
    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the selection for each query; all examples of the pools may be chosen."""


def allowed_pools(
    queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
) -> tuple[list[Query], list[list[Example]]]:
    """Return the queries with their images' hashes, and the examples that may be shown for each.

    Raises:
        UserError: As `candidates_for`.
    """
    asked = [hashed_query(query) for query in queries]
    return asked, [
        candidates_for(query, pool, shots) for query, pool in zip(asked, pools, strict=True)
    ]


def candidates_for(query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
    """Return the examples that may be shown for a query: those with another image.

    Raises:
        UserError: Fewer than `shots` are left, or the pool holds an example twice.
    """
    examples = [e if e.image_sha256 else hashed(e) for e in pool]
    # Different ids are different examples, so a full comparison is needed only if ids are equal.
    distinct = len(set(map(_NUMBER, examples))) == len(examples)
    if not distinct and len(set(examples)) != len(examples):
        raise UserError("the pool holds an example twice: leave repeats out.")
    allowed = [e for e in examples if e.image_sha256 != query.image_sha256]
    if len(allowed) < shots:
        raise too_few(query, len(allowed), shots)
    return allowed


def too_few(query: Query, allowed: int, shots: int) -> UserError:
    """Return the error for a pool with only `allowed` examples that may be shown."""
    return UserError(
        f"{shots} demonstrations are asked for {query.question!r} ({query.image}), but the "
        f"pool has {allowed} examples with another image: use a larger pool, or fewer shots."
    )


def select_all(
    selector: Selector, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
) -> list[Selection]:
    """Return the selections of any selector, checked against their pools.

    Raises:
        PointerError: A selection holds an example that is not in its pool, holds one twice, shows
            the query's image, or does not have `shots` examples (fewer are allowed if the
            selector's attribute `stops` is true).
    """
    if isinstance(selector, SelectsBatches):
        found = selector.select_all(queries, pools, shots)
    else:
        found = [
            Selection(tuple(selector.select(query, pool, shots)))
            for query, pool in zip(queries, pools, strict=True)
        ]
    bound, stops = getattr(selector, "bound_to_pools", True), getattr(selector, "stops", False)
    _check(found, queries, pools, shots, bound=bound, stops=stops)
    return found


def select_each_shot(
    selector: Selector, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
) -> list[list[Selection]]:
    """Return the selections of 1, 2, ..., `shots` demonstrations, checked as in `select_all`.

    Those of a selector without `select_each_shot` are the prefixes of its longest selection.
    """
    if isinstance(selector, SelectsEachShot):
        found = selector.select_each_shot(queries, pools, shots)
        for shot, selections in enumerate(found, start=1):
            _check(selections, queries, pools, shot, bound=True, stops=False)
        return found
    whole = select_all(selector, queries, pools, shots)
    return [
        [Selection(s.examples[:shot], s.log_probs[:shot]) for s in whole]
        for shot in range(1, shots + 1)
    ]


def _check(
    found: Sequence[Selection],
    queries: Sequence[Query],
    pools: Sequence[Sequence[Example]],
    shots: int,
    *,
    bound: bool,
    stops: bool,
) -> None:
    for selection, query, pool in zip(found, queries, pools, strict=True):
        examples, where = selection.examples, f"{query.question!r} ({query.image})"
        wanted = min(len(examples), shots) if stops else shots
        if len(examples) != wanted or len(set(examples)) != wanted:
            raise PointerError(
                f"the selector chose {len(set(examples))} distinct examples for {where}, not "
                f"{wanted}: it must return as many as it is asked for, and none twice."
            )
        if bound and not _within(examples, pool):
            raise PointerError(
                f"the selector chose an example for {where} that is not in its pool: it must "
                "return examples of the pool that it gets."
            )
        image = hashed_query(query).image_sha256
        if any(hashed(example).image_sha256 == image for example in examples):
            raise PointerError(
                f"the selector chose an example for {where} that shows the query's own image: it "
                "must leave such examples out."
            )


def _within(examples: Sequence[Example], pool: Sequence[Example]) -> bool:
    """Return whether all examples are in a pool; for the same objects, that is fast to see."""
    held = set(map(id, pool))
    others = {hashed(example) for example in examples if id(example) not in held}
    return not others or others <= {hashed(example) for example in pool}
