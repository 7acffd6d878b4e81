"""Features for a process that runs for long: what strangers ask is forgotten after a while.

Whoever is asked by strangers all day would otherwise fill the memory, and a file, with features of
questions that nobody asks again.
"""

from collections.abc import Sequence
from typing import Final

from lever_plus.data.examples import Example, Query
from lever_plus.features.sources import EncodedFeatures
from lever_plus.features.whitening import Array

MOST: Final = 2048
"""Queries and examples of others that are remembered; then all of them are forgotten."""


class PassingFeatures:
    """The same features as those that it is made of; one thread at a time may ask."""

    def __init__(self, kept: EncodedFeatures, *, of_pool: bool, most: int = MOST) -> None:
        """Keep what encodes.

        Args:
            kept: Encodes.
            of_pool: Whether candidates are of a pool of one's own, whose features are kept.
            most: See `MOST`.
        """
        self._kept, self._of_pool, self._most = kept, of_pool, most
        self._passing, self._held = kept.apart(), 0

    @property
    def space_sha256(self) -> str:
        """Hash of the feature space."""
        return self._kept.space_sha256

    def queries(self, queries: Sequence[Query]) -> Array:
        """Return what a policy sees of queries, float32 [n, query_size]."""
        return self._apart(len(queries)).queries(queries)

    def candidates(self, examples: Sequence[Example]) -> Array:
        """Return what a policy sees of candidates, float32 [n, candidate_size]."""
        return self._of(examples).candidates(examples)

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        """Return a part of queries at unit length, [n, dimensions]."""
        return self._apart(len(queries)).unit_queries(queries, part)

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        """Return a part of examples at unit length, [n, dimensions]."""
        return self._of(examples).unit_candidates(examples, part)

    def _of(self, examples: Sequence[Example]) -> EncodedFeatures:
        return self._kept if self._of_pool else self._apart(len(examples))

    def _apart(self, more: int) -> EncodedFeatures:
        if self._held + more > self._most:
            self._passing, self._held = self._kept.apart(), 0
        self._held += more
        return self._passing
