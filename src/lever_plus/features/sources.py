"""Where selectors get features from: an experiment's files, or an encoder for anything new.

Both give the same numbers for the same content, up to rounding.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from lever_plus.data.examples import Example, Query, hashed, hashed_query
from lever_plus.data.images import check_unchanged
from lever_plus.errors import PointerError, UserError
from lever_plus.features.embeddings import Embeddings
from lever_plus.features.encoder import ClipEncoder, InMemory
from lever_plus.features.kept import KeptFeatures, remember
from lever_plus.features.whitening import PARTS, QUERY_PARTS, Array, FeatureSpace

Item = TypeVar("Item", Example, Query)


class Features(Protocol):
    """Features of queries and candidates; row i belongs to item i of the argument."""

    @property
    def space_sha256(self) -> str:
        """Hash of the feature space."""
        ...

    def queries(self, queries: Sequence[Query]) -> Array:
        """Return what a policy sees of queries, float32 [n, query_size]."""
        ...

    def candidates(self, examples: Sequence[Example]) -> Array:
        """Return what a policy sees of candidates, float32 [n, candidate_size]."""
        ...

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        """Return part "question" or "image" of queries at unit length, float32 [n, dimensions]."""
        ...

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        """Return part "question", "image" or "answer" of examples, as `unit_queries` does."""
        ...


class StoredFeatures:
    """Features of an experiment's examples, and of the queries in them, from its files.

    All methods raise `PointerError` for a query or an example that is not of the experiment.
    """

    def __init__(self, embeddings: Embeddings, examples: Mapping[int, Example]) -> None:
        """Keep the features by id, and the examples by id."""
        self._embeddings, self._examples = embeddings, examples
        self._ids = {example.query: number for number, example in examples.items()}

    @property
    def space_sha256(self) -> str:
        """Hash of the feature space."""
        return self._embeddings.space_sha256

    def queries(self, queries: Sequence[Query]) -> Array:
        """Return what a policy sees of queries, float32 [n, query_size]."""
        return self._embeddings.queries(self._of(queries))

    def candidates(self, examples: Sequence[Example]) -> Array:
        """Return what a policy sees of candidates, float32 [n, candidate_size]."""
        return self._embeddings.candidates(self._embeddings.rows_of(self._known(examples)))

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        """Return a part of queries at unit length, [n, dimensions]."""
        return self._embeddings.unit_of(self._of(queries), part)

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        """Return a part of examples at unit length, [n, dimensions]."""
        return self._embeddings.unit_of(self._known(examples), part)

    def _known(self, examples: Sequence[Example]) -> list[int]:
        """Return the ids of examples, after checking that each is the experiment's with that id."""
        for example in examples:
            known = self._examples.get(example.question_id)
            if known is not example and known != example:
                raise PointerError(
                    f"{example.question!r} ({example.image}) is not an example of this experiment, "
                    "so its features are not stored: use an encoder (`load_selector`)."
                )
        return [example.question_id for example in examples]

    def _of(self, queries: Sequence[Query]) -> list[int]:
        unknown = [query for query in queries if query not in self._ids]
        if unknown:
            raise PointerError(
                f"{unknown[0].question!r} ({unknown[0].image}) is not a query of this experiment, "
                "so its features are not stored: use an encoder (`load_selector`)."
            )
        return [self._ids[query] for query in queries]


class EncodedFeatures:
    """Features of any query or example, encoded when they are first needed and kept by content."""

    def __init__(
        self, space: FeatureSpace, encoder: ClipEncoder, kept: KeptFeatures | None = None
    ) -> None:
        """Keep the feature space and its encoder.

        Args:
            space: The whitening.
            encoder: The encoder that computes the features.
            kept: Cache of unit-length features; None: they are kept in memory.

        Raises:
            UserError: The feature space belongs to another encoder.
        """
        if encoder.identity != space.encoder:
            raise UserError(
                f"the feature space belongs to encoder {space.encoder[:12]}, but this encoder is "
                f"{encoder.identity[:12]}: use the one that the selector was trained with."
            )
        self._space, self._encoder = space, encoder
        self._kept = kept or KeptFeatures(None, encoder.identity)
        self._white: dict[Example | Query, Array] = {}

    def apart(self) -> "EncodedFeatures":
        """Return features of the same space and encoder, with a cache of their own in memory."""
        return EncodedFeatures(self._space, self._encoder)

    @property
    def space_sha256(self) -> str:
        """Hash of the feature space."""
        return self._space.sha256

    def queries(self, queries: Sequence[Query]) -> Array:
        """Return what a policy sees of queries, float32 [n, query_size]."""
        asked = [hashed_query(query) for query in queries]
        return self._whitened(asked, self.unit_queries, self._space.query, QUERY_PARTS)

    def candidates(self, examples: Sequence[Example]) -> Array:
        """Return what a policy sees of candidates, float32 [n, candidate_size]."""
        shown = [hashed(example) for example in examples]
        return self._whitened(shown, self.unit_candidates, self._space.candidates, PARTS)

    def unit_queries(self, queries: Sequence[Query], part: str) -> Array:
        """Return a part of queries at unit length, [n, dimensions]."""
        if part == "image":
            return self._images([hashed_query(query) for query in queries])
        return self._texts([query.question for query in queries])

    def unit_candidates(self, examples: Sequence[Example], part: str) -> Array:
        """Return a part of examples at unit length, [n, dimensions]."""
        if part == "image":
            return self._images([hashed(example).query for example in examples])
        return self._texts([e.answer if part == "answer" else e.question for e in examples])

    def _whitened(
        self,
        items: Sequence[Item],
        unit: Callable[[Sequence[Item], str], Array],
        white: Callable[[Mapping[str, Array]], Array],
        parts: Iterable[str],
    ) -> Array:
        known = {item: self._white[item] for item in items if item in self._white}
        new = list(dict.fromkeys(item for item in items if item not in known))
        if new:
            rows = white({part: unit(new, part) for part in parts})
            known |= (fresh := dict(zip(new, rows, strict=True)))
            remember(self._white, fresh)
        return np.stack([known[item] for item in items])

    def _images(self, queries: Sequence[Query]) -> Array:
        paths = {query.image_sha256: query.image for query in queries}

        def encode(keys: Sequence[str]) -> Array:
            check_unchanged((paths[key], key) for key in keys)
            return self._encoder.images([paths[key] for key in keys], InMemory())

        return self._kept.rows("image", [query.image_sha256 for query in queries], encode)

    def _texts(self, texts: Sequence[str]) -> Array:
        def encode(keys: Sequence[str]) -> Array:
            return self._encoder.texts(keys, InMemory())

        return self._kept.rows("text", texts, encode)
