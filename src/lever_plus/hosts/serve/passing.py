"""Features for a server that runs for a long time: those of clients' questions are forgotten.

Otherwise the features of questions that nobody asks again would fill the memory, and a file.
"""

from collections.abc import Sequence
from typing import Final

from lever_plus.data.examples import Example, Query
from lever_plus.features.sources import EncodedFeatures
from lever_plus.features.whitening import Array

MOST: Final = 2048
"""Most queries and clients' examples that are remembered; then all of them are forgotten."""


class PassingFeatures:
    """Gives the same features as the encoder; only one thread at a time may use it."""

    def __init__(self, kept: EncodedFeatures, *, of_pool: bool, most: int = MOST) -> None:
        """Keep the encoder.

        Args:
            kept: Encodes images and texts.
            of_pool: Whether candidates are from the server's own pool; their features are kept.
            most: See `MOST`.
        """
        self._kept, self._of_pool, self._most = kept, of_pool, most
        self._passing, self._held = kept.apart(), 0

    @property
    def space_sha256(self) -> str:
        """Hash of the feature space."""
        return self._kept.space_sha256

    def queries(self, queries: Sequence[Query]) -> Array:
        """Return the features of queries that a policy gets, float32 [n, query_size]."""
        return self._apart(len(queries)).queries(queries)

    def candidates(self, examples: Sequence[Example]) -> Array:
        """Return the features of candidates that a policy gets, float32 [n, candidate_size]."""
        return self._of(examples).candidates(examples)

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        """Return one part ("image", "question") of queries' features, unit length, [n, size]."""
        return self._apart(len(queries)).unit_queries(queries, part)

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        """Return one part of examples' features at unit length, [n, size]."""
        return self._of(examples).unit_candidates(examples, part)

    def _of(self, examples: Sequence[Example]) -> EncodedFeatures:
        return self._kept if self._of_pool else self._apart(len(examples))

    def _apart(self, more: int) -> EncodedFeatures:
        if self._held + more > self._most:
            self._passing, self._held = self._kept.apart(), 0
        self._held += more
        return self._passing
