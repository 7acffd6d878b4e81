"""Selectors without a policy: random, by similarity, diverse, and one fixed pointer for all."""

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
    """Draws pointers uniformly, for one query after another."""

    def __init__(self, seed: int) -> None:
        """Seed the draws: the same seed and the same order of queries give the same pointers."""
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
            features: Where the unit-length features come from, whose cosines are compared.
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
    """Picks by maximal marginal relevance of the question text (Carbonell and Goldstein 1998).

    Each pick c maximises relevance * cos(query, c) - (1 - relevance) * max over picks p of
    cos(c, p).
    """

    def __init__(self, features: Features, relevance: float = 0.7) -> None:
        """Keep the features.

        Args:
            features: Where the unit-length features come from.
            relevance: Weight of nearness to the query, in [0, 1].
        """
        self._features, self._relevance = features, relevance

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return diverse pointers."""
        return [self._one(query, pool, shots) for query, pool in zip(queries, pools, strict=True)]

    def _one(self, query: Query, pool: Sequence[Example], shots: int) -> Selection:
        near = cosine(STTR, self._features, query, pool)
        text = self._features.unit_candidates(pool, "question")
        closest = np.zeros(len(pool), dtype=np.float32)  # largest cosine to a pick
        picked: list[int] = []
        for _ in range(shots):
            score = self._relevance * near - (1 - self._relevance) * closest
            score[picked] = -np.inf
            picked.append(int(score.argmax()))
            closest = np.maximum(closest, text @ text[picked[-1]])
        return _of(pool, picked)


class AsManySelector(BatchSelector):
    """Shows the demonstrations of one selector, but only as many as another selector shows."""

    stops = True

    def __init__(self, chooser: BatchSelector, counter: BatchSelector) -> None:
        """Keep the selector that chooses, and the one whose number of demonstrations is used."""
        self._chooser, self._counter = chooser, counter

    def choose(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[Selection]:
        """Return the first demonstrations of the chooser, as many as the counter shows."""
        chosen = self._chooser.choose(queries, pools, shots)
        counted = self._counter.choose(queries, pools, shots)
        return [
            Selection(selection.examples[: len(other.examples)])
            for selection, other in zip(chosen, counted, strict=True)
        ]


class FixedSelector:
    """Shows the first demonstrations of one pointer for all queries, whatever their pools are.

    Those that show the query's image are left out.
    """

    def __init__(self, pointer: Sequence[Example], *, bound_to_pools: bool = False) -> None:
        """Keep the pointer, and whether each pool must hold it (see `select_all`)."""
        self._pointer, self.bound_to_pools = tuple(pointer), bound_to_pools

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:  # noqa: ARG002
        """Return the first `shots` demonstrations with another image than the query's.

        Raises:
            UserError: The pointer has fewer of them.
        """
        return candidates_for(hashed_query(query), self._pointer, shots)[:shots]


def fixed_candidates(
    pools: Sequence[Sequence[int]], shots: int, count: int, seed: int
) -> list[tuple[int, ...]]:
    """Draw pointers that could be shown for all queries.

    Args:
        pools: Ids of each query's pool.
        shots: Length of the pointers.
        count: Number of pointers.
        seed: Seed of the draws.

    Returns:
        Pointers of ids that all pools hold. If these are fewer than `shots`, because each query has
        its own pool, ids of any pool are drawn, and the pointers are not bound to pools.
    """
    held = [set(pool) for pool in pools]
    common = set.intersection(*held)
    choices = sorted(common if len(common) >= shots else set.union(*held))
    rng = np.random.default_rng([seed, FIXED_STREAM])
    return [tuple(map(int, rng.choice(choices, shots, replace=False))) for _ in range(count)]


def _of(pool: Sequence[Example], positions: Sequence[int]) -> Selection:
    return Selection(tuple(pool[int(position)] for position in positions))
