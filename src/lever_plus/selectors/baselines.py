"""Selectors without a policy: random, by similarity, diverse, and one pointer for all queries."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from lever_plus.data.examples import Example, Query, hashed_query
from lever_plus.features.neighbours import cosine, ranked
from lever_plus.features.similarities import SIMILARITIES, STTR
from lever_plus.features.sources import Features
from lever_plus.selectors.base import BatchSelector, Selection, candidates_for

RANDOM_STREAM: Final = 20
FIXED_STREAM: Final = 21


class RandomSelector(BatchSelector):
    """Draws uniform pointers, one query after the other."""

    def __init__(self, seed: int) -> None:
        """Start the draws; equal seeds and queries give equal pointers."""
        self._rng = np.random.default_rng([seed, RANDOM_STREAM])

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return uniform pointers."""
        drawn = [self._rng.choice(len(pools[i]), shots, replace=False) for i in range(len(queries))]
        return [_of(pool, list(places)) for pool, places in zip(pools, drawn, strict=True)]


class SimilaritySelector(BatchSelector):
    """Takes the most similar examples, the most similar first."""

    def __init__(self, features: Features, similarity: str = STTR) -> None:
        """Keep the features.

        Args:
            features: Unit-length features; similarity is the cosine.
            similarity: A key of `SIMILARITIES`.

        Raises:
            ValueError: There is no such similarity.
        """
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity {similarity!r} is none of {', '.join(SIMILARITIES)}")
        self._features, self._similarity = features, similarity

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the nearest examples."""
        return [
            _of(pool, ranked(self._similarity, self._features, query, pool)[:shots])
            for query, pool in zip(queries, pools, strict=True)
        ]


class DiverseSelector(BatchSelector):
    """Takes pointers by maximal marginal relevance of the question text.

    Each pick maximises  relevance * cos(query, c) - (1 - relevance) * max over picked cos(c, p)
    (Carbonell and Goldstein 1998).
    """

    def __init__(self, features: Features, relevance: float = 0.7) -> None:
        """Keep the features and the weight of being near the query, in [0, 1]."""
        self._features, self._relevance = features, relevance

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return diverse pointers."""
        return [self._one(query, pool, shots) for query, pool in zip(queries, pools, strict=True)]

    def _one(self, query: Query, pool: Sequence[Example], shots: int) -> Selection:
        near = cosine(STTR, self._features, query, pool)
        text = self._features.unit_candidates(pool, "question")
        closest = np.zeros(len(pool), dtype=np.float32)  # to a picked one
        picked: list[int] = []
        for _ in range(shots):
            score = self._relevance * near - (1 - self._relevance) * closest
            score[picked] = -np.inf
            picked.append(int(score.argmax()))
            closest = np.maximum(closest, text @ text[picked[-1]])
        return _of(pool, picked)


class AsManySelector(BatchSelector):
    """Shows what one selector chooses, but only as many as another one shows."""

    stops = True

    def __init__(self, chooser: BatchSelector, counter: BatchSelector) -> None:
        """Keep what chooses, and what says how many."""
        self._chooser, self._counter = chooser, counter

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the first demonstrations of the chooser."""
        chosen = self._chooser.choose(queries, pools, shots)
        counted = self._counter.choose(queries, pools, shots)
        return [
            Selection(selection.examples[: len(other.examples)])
            for selection, other in zip(chosen, counted, strict=True)
        ]


class FixedSelector:
    """Shows the first demonstrations of one pointer to all queries, whatever their pools.

    Those that show the query's image are left out.
    """

    def __init__(self, pointer: Sequence[Example], *, bound_to_pools: bool = False) -> None:
        """Keep the pointer, and whether every pool must hold it."""
        self._pointer, self.bound_to_pools = tuple(pointer), bound_to_pools

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:  # noqa: ARG002
        """Return the first `shots` demonstrations with another image than the query's.

        Raises:
            UserError: The pointer has fewer.
        """
        return candidates_for(hashed_query(query), self._pointer, shots)[:shots]


def fixed_candidates(
    pools: Sequence[Sequence[int]], shots: int, count: int, seed: int
) -> list[tuple[int, ...]]:
    """Draw pointers (ids) that could be shown to all queries: from what all their pools hold.

    Where pools differ, they share nothing: then any example of any of the pools may be drawn, and
    the pointer is not bound to pools.
    """
    held = [set(pool) for pool in pools]
    common = set.intersection(*held)
    choices = sorted(common if len(common) >= shots else set.union(*held))
    rng = np.random.default_rng([seed, FIXED_STREAM])
    return [tuple(map(int, rng.choice(choices, shots, replace=False))) for _ in range(count)]


def _of(pool: Sequence[Example], positions: Sequence[int]) -> Selection:
    return Selection(tuple(pool[int(position)] for position in positions))
