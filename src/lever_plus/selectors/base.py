"""What a selector is: anything that chooses demonstrations for a query from a pool.

A user's own selector needs one method, `select`. The batched forms are for speed and for methods
that decide anew at every number of demonstrations; where a selector lacks them, `select` is called.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple, Protocol, runtime_checkable

from lever_plus.data.examples import Example, Query, hashed, hashed_query
from lever_plus.errors import PointerError, UserError

_NUMBER: Final = attrgetter("question_id")


class Selection(NamedTuple):
    """Demonstrations in prompt order; the log-probability of each pick, where a policy made it."""

    examples: tuple[Example, ...]
    log_probs: tuple[float, ...] = ()


class Selector(Protocol):
    """Chooses demonstrations."""

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> Sequence[Example]:
        """Return `shots` distinct examples of the pool, in the order they are to be shown in.

        A selector whose attribute `stops` is true may return fewer, or none.
        """
        ...


@runtime_checkable
class SelectsBatches(Protocol):
    """A selector that is faster on many queries at once."""

    def select_all(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return a selection for each query from its pool."""
        ...


@runtime_checkable
class SelectsEachShot(Protocol):
    """A selector whose choice of k demonstrations is not the first k of its choice of more."""

    def select_each_shot(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[list[Selection]]:
        """Return the selections of 1, 2, ..., `shots` demonstrations, each a list over queries."""
        ...


class BatchSelector(ABC):
    """Base of the selectors here: candidates that show the query's image are never chosen."""

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return `shots` distinct examples of the pool, in the order they are to be shown in.

        Raises:
            UserError: The pool is too small, or names an example twice.
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
        """Return a selection for each query; every pool holds enough allowed candidates."""


def allowed_pools(
    queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
) -> tuple[list[Query], list[list[Example]]]:
    """Return the queries with their images' hashes, and what may be shown before each.

    Raises:
        UserError: As `candidates_for`.
    """
    asked = [hashed_query(query) for query in queries]
    return asked, [
        candidates_for(query, pool, shots) for query, pool in zip(asked, pools, strict=True)
    ]


def candidates_for(query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
    """Return what may be shown before a query: the examples with another image.

    Raises:
        UserError: Fewer than `shots` are left, or the pool names an example twice.
    """
    examples = [e if e.image_sha256 else hashed(e) for e in pool]
    # Other numbers are other examples; only what shares one has to be compared.
    distinct = len(set(map(_NUMBER, examples))) == len(examples)
    if not distinct and len(set(examples)) != len(examples):
        raise UserError("the pool names an example twice: leave repeats out.")
    allowed = [e for e in examples if e.image_sha256 != query.image_sha256]
    if len(allowed) < shots:
        raise too_few(query, len(allowed), shots)
    return allowed


def too_few(query: Query, allowed: int, shots: int) -> UserError:
    """Return the error of a pool that holds fewer examples that may be shown than are asked for."""
    return UserError(
        f"{shots} demonstrations are asked for {query.question!r} ({query.image}), but the "
        f"pool has {allowed} examples with another image: use a larger pool, or fewer shots."
    )


def select_all(
    selector: Selector, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
) -> list[Selection]:
    """Return the selections of any selector, checked against their pools.

    Raises:
        PointerError: A selection names an example outside its pool, or one twice, has another
            length (a selector that `stops` may choose fewer), or shows the query's image.
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
    """Return the selections of 1..shots demonstrations: prefixes, where a selector is nested."""
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
                f"{wanted}: a selector returns as many as it is asked for, each once."
            )
        if bound and not _within(examples, pool):
            raise PointerError(
                f"the selector chose an example for {where} that is not in its pool: a selector "
                "returns examples of the pool that it is given."
            )
        image = hashed_query(query).image_sha256
        if any(hashed(example).image_sha256 == image for example in examples):
            raise PointerError(
                f"the selector chose an example for {where} that shows the query's own image: a "
                "demonstration has another one."
            )


def _within(examples: Sequence[Example], pool: Sequence[Example]) -> bool:
    """Return whether all examples are in a pool: most are its very objects, which is seen fast."""
    held = set(map(id, pool))
    others = {hashed(example) for example in examples if id(example) not in held}
    return not others or others <= {hashed(example) for example in pool}
