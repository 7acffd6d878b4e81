"""A pool that grows and shrinks while a learned selector chooses from it.

What does not depend on the question is computed once, when an example is added. In a large pool the
policy sees a question's nearest neighbours alone: it is trained on pools of a size like theirs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lever_plus.data.examples import Example, Query, fresh_ids, hashed_query
from lever_plus.data.images import opened_sha256
from lever_plus.data.pool_folder import PoolFolder
from lever_plus.data.texts import check_texts
from lever_plus.errors import UserError
from lever_plus.features.index import NearestIndex, Search
from lever_plus.features.similarities import STTR
from lever_plus.policy.encoding import Floats, Rows, encode_pools
from lever_plus.policy.network import Encoded
from lever_plus.selectors.base import Selection, too_few
from lever_plus.selectors.learned import LearnedSelector

CANDIDATES: Final = 256
"""Neighbours that a policy chooses from; a pool that is not larger is seen whole."""
LARGEST_BATCH: Final = 2**16
"""Candidates that are encoded at once."""
_Content = tuple[str, str, str]


class _Held(NamedTuple):
    """What a pool holds at one moment; never changed, so that whoever is choosing may go on.

    examples: In order; rows: {question_id: its place}; images: {image's hash: places that show it};
    projected: Of the policy, [examples, P].
    """

    examples: tuple[Example, ...]
    rows: dict[int, int]
    images: dict[str, tuple[int, ...]]
    projected: Tensor

    def of(self, rows: Rows) -> list[Example]:
        """Return the examples of places."""
        return [self.examples[row] for row in rows.tolist()]


class LivePool:
    """Examples that a learned selector chooses from; several threads may choose, add and remove.

    Attributes:
        selector: Chooses.
        candidates: How many neighbours of a question it sees; None: the whole pool, however large.
    """

    def __init__(
        self,
        selector: LearnedSelector,
        examples: Iterable[Example] = (),
        *,
        folder: str | Path | None = None,
        candidates: int | None = CANDIDATES,
        similarity: str = STTR,
        search: Search = "exact",
    ) -> None:
        """Open a pool.

        Args:
            selector: Such as `load_selector` returns; with `features=...`, encoded images and texts
                outlive the process too.
            examples: Added to it; those that a folder holds already are passed over.
            folder: Keeps the pool; None: it goes with the process.
            candidates: See above.
            similarity: What neighbours are nearest by, a key of `SIMILARITIES`.
            search: How neighbours are found: "exact", or "approximate" (faiss; from 10,000
                examples on).

        Raises:
            UserError: The folder is no pool, an image or a text of an example cannot be shown, or
                the approximate search is wanted and faiss is not installed.
        """
        if candidates is not None and candidates < 1:
            raise UserError(f"candidates is {candidates}: a selector sees 1 or more.")
        self.selector, self.candidates = selector, candidates
        self._folder = None if folder is None else PoolFolder(folder)
        self._index = NearestIndex(selector.features, similarity, search) if candidates else None
        self._changing, self._known = Lock(), dict[_Content, int]()
        self._held = _EMPTY
        # A list is taken as it is; to a folder, what it does not hold is added.
        kept = self._folder.read() if self._folder else self._numbered(_shown(examples))
        if kept:
            self._take(kept, selector.features.candidates(kept))
        if self._folder:
            self.add(examples)

    @property
    def images(self) -> Path | None:
        """The folder of a kept pool's own images; None where it is not kept."""
        return self._folder.images if self._folder else None

    @property
    def examples(self) -> tuple[Example, ...]:
        """What may be chosen, in order."""
        return self._held.examples

    def add(self, examples: Iterable[Example]) -> list[int]:
        """Add examples to the end of the pool.

        An example whose image, question and answer are there already is not added again.

        Returns:
            The `question_id` that each is known by here: its own, where that is free.

        Raises:
            UserError: An image does not open, a text cannot be shown, or the folder cannot be
                written to; then none is added.
        """
        given = _shown(examples)
        with self._changing:
            fresh = {_content(e): e for e in given if _content(e) not in self._known}
            added = self._numbered(list(fresh.values()))
            if added:
                seen = self.selector.features.candidates(added)
                if self._folder is not None:  # what cannot be encoded is not kept
                    self._folder.add(added)
                self._take(added, seen)
            return [self._known[_content(example)] for example in given]

    def _numbered(self, examples: Sequence[Example]) -> list[Example]:
        taken = set(self._held.rows)
        free = fresh_ids({*taken, *(example.question_id for example in examples)})
        numbered = []
        for example in examples:
            own = example.question_id
            number = own if own and own not in taken else next(free)
            numbered.append(replace(example, question_id=number))
            taken.add(number)
        return numbered

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove examples by their `question_id`.

        Raises:
            UserError: The pool has none of this number (then none is removed), or the folder cannot
                be written to.
        """
        gone = set(numbers)
        with self._changing:
            held = self._held
            unknown = sorted(gone - held.rows.keys())
            if unknown:
                raise UserError(f"the pool has no example {unknown[0]}: none was removed.")
            if self._folder is not None:
                self._folder.remove(sorted(gone))
            if self._index is not None:
                self._index.remove(sorted(gone))
            stay = [row for row, e in enumerate(held.examples) if e.question_id not in gone]
            for number in gone:
                self._known.pop(_content(held.examples[held.rows[number]]), None)
            kept = [held.examples[row] for row in stay]
            self._held = _with_places(_EMPTY, kept, held.projected[stay])

    def select(self, query: Query, shots: int) -> list[Example]:
        """Return demonstrations for a query, in the order they are to be shown in.

        Raises:
            UserError: The pool is too small, or the image does not open.
        """
        return list(self.select_all([query], shots)[0].examples)

    def neighbours(self, query: Query) -> list[int]:
        """Return the numbers of the examples that the policy sees for a query, in their order."""
        held = self._held
        rows = self._seen(held, hashed_query(query), 1)
        return [example.question_id for example in held.of(rows)]

    @torch.no_grad()
    def select_all(self, queries: Sequence[Query], shots: int) -> list[Selection]:
        """Return a selection for each query; errors as `select`."""
        held, asked = self._held, [hashed_query(query) for query in queries]
        seen = [self._seen(held, query, shots) for query in asked]
        found: list[Selection] = []
        size = max(1, LARGEST_BATCH // max(map(len, seen), default=1))
        for start in range(0, len(asked), size):
            part = seen[start : start + size]
            encoded = self._encoded(held, asked[start : start + size], part)
            pools = [
                held.examples if len(rows) == len(held.examples) else held.of(rows) for rows in part
            ]
            found += self.selector.choose_encoded(encoded, pools, shots)
        return found

    def _encoded(self, held: _Held, queries: Sequence[Query], seen: Sequence[Rows]) -> Encoded:
        policy, asked = self.selector.policy, self.selector.features.queries(queries)
        if len(queries) > 1 or len(seen[0]) < len(held.examples):
            return encode_pools(policy, asked, seen, _not_needed, held.projected)
        # A large pool that is seen whole is not copied.
        valid = torch.ones(1, len(held.examples), dtype=torch.bool)
        return policy.relate(torch.from_numpy(asked), held.projected[None], valid)

    def _seen(self, held: _Held, query: Query, shots: int) -> Rows:
        """Return the places of what the policy sees for a query, in the order of the pool."""
        own = held.images.get(query.image_sha256, ())
        size = len(held.examples) - len(own)
        if size < shots:
            raise too_few(query, size, shots)
        rows = self._neighbours(held, query, own, shots)
        if rows is None:
            rows = np.arange(len(held.examples))
            return np.delete(rows, own) if own else rows
        return rows

    def _neighbours(self, held: _Held, query: Query, own: Sequence[int], shots: int) -> Rows | None:
        """Return the places of a query's neighbours, in order; None where all are seen."""
        wanted = max(self.candidates or 0, shots)
        if self._index is None or len(held.examples) - len(own) <= wanted:
            return None
        found = self._index.nearest(query, wanted + len(own)).tolist()
        # The index may be a change ahead.
        near = [held.rows[number] for number in found if number in held.rows]
        rows = [row for row in near if row not in own][:wanted]
        return np.sort(np.array(rows, dtype=np.int64)) if len(rows) >= shots else None

    @torch.no_grad()
    def _take(self, added: Sequence[Example], seen: Floats) -> None:
        """Hold more examples, and the features that the policy sees of them."""
        fresh, held = self.selector.policy.project(torch.from_numpy(seen)), self._held
        projected = torch.cat([held.projected, fresh]) if held.examples else fresh
        if self._index is not None:
            self._index.add([example.question_id for example in added], added)
        self._known |= {_content(example): example.question_id for example in added}
        self._held = _with_places(held, added, projected)


_EMPTY: Final = _Held((), {}, {}, torch.zeros(0, 0))


def _shown(examples: Iterable[Example]) -> list[Example]:
    """Return examples that can be shown, with the hashes of their images; UserError if not."""
    found = [replace(e, image_sha256=e.image_sha256 or opened_sha256(e.image)) for e in examples]
    check_texts(found)
    return found


def _content(example: Example) -> _Content:
    """Return what makes an example another one: its image, question and answer."""
    return example.image_sha256, example.question, example.answer


def _with_places(held: _Held, added: Sequence[Example], projected: Tensor) -> _Held:
    """Return what is held with more examples at its end."""
    first = len(held.examples)
    rows, images = dict(held.rows), dict(held.images)
    for row, example in enumerate(added, start=first):
        rows[example.question_id] = row
        images[example.image_sha256] = (*images.get(example.image_sha256, ()), row)
    return _Held((*held.examples, *added), rows, images, projected)


def _not_needed(_rows: Rows) -> Floats:
    raise AssertionError("candidates are projected already")
