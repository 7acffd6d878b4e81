"""A pool that can grow and shrink while a learned selector chooses from it.

All that does not depend on the query is computed once, when an example is added. From a large pool
the policy sees only the query's nearest neighbours, because it was trained on small pools.
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
"""Number of neighbours that a policy sees; it sees all of a pool that is not larger."""
LARGEST_BATCH: Final = 2**16
"""Candidates that are encoded in one batch."""
_Content = tuple[str, str, str]


class _Held(NamedTuple):
    """The content of a pool at one moment.

    A change of the pool makes a new one, so that threads that are choosing are not disturbed.

    Attributes:
        examples: The examples, in order.
        rows: {question_id: place in `examples`}.
        images: {hash of an image: places of the examples that show it}.
        projected: The policy's projections of the examples, [examples, P].
    """

    examples: tuple[Example, ...]
    rows: dict[int, int]
    images: dict[str, tuple[int, ...]]
    projected: Tensor

    def of(self, rows: Rows) -> list[Example]:
        """Return the examples at these places."""
        return [self.examples[row] for row in rows.tolist()]


class LivePool:
    """Examples that a learned selector chooses from.

    Several threads may choose, add and remove at the same time.

    Attributes:
        selector: The selector that chooses.
        candidates: How many neighbours of a query it sees; None: the whole pool, however large.
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
            selector: A selector from `load_selector`; with its argument `features`, features of
                images and texts are kept for later processes, too.
            examples: Examples to add; those that the folder holds already are ignored.
            folder: Folder in which the pool is kept; None: it is lost with the process.
            candidates: How many neighbours of a query the selector sees; None: the whole pool.
            similarity: The similarity by which neighbours are found, a key of `SIMILARITIES`.
            search: How neighbours are found: "exact", or "approximate" (faiss), which takes effect
                from 10,000 examples on.

        Raises:
            UserError: The folder holds something else than a pool, an image or a text of an example
                cannot be shown, or faiss is needed but not installed.
        """
        if candidates is not None and candidates < 1:
            raise UserError(f"candidates is {candidates}: it must be 1 or more, or None for all.")
        self.selector, self.candidates = selector, candidates
        self._folder = None if folder is None else PoolFolder(folder)
        self._index = NearestIndex(selector.features, similarity, search) if candidates else None
        self._changing, self._known = Lock(), dict[_Content, int]()
        self._held = _EMPTY
        # A list is taken as it is; to a folder, only the examples that it lacks are added.
        kept = self._folder.read() if self._folder else self._numbered(_shown(examples))
        if kept:
            self._take(kept, selector.features.candidates(kept))
        if self._folder:
            self.add(examples)

    @property
    def images(self) -> Path | None:
        """The folder for images of a pool that is kept; None if it is not kept."""
        return self._folder.images if self._folder else None

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples of the pool, in order."""
        return self._held.examples

    def add(self, examples: Iterable[Example]) -> list[int]:
        """Add examples to the end of the pool.

        An example whose image, question and answer are in the pool already is not added again.

        Returns:
            The `question_id` of each example in this pool: its own if that was free, else a new
            one.

        Raises:
            UserError: An image cannot be opened, a text cannot be shown, or the folder cannot be
                written to; then none is added.
        """
        given = _shown(examples)
        with self._changing:
            fresh = {_content(e): e for e in given if _content(e) not in self._known}
            added = self._numbered(list(fresh.values()))
            if added:
                seen = self.selector.features.candidates(added)
                if self._folder is not None:  # only now: what cannot be encoded must not be kept
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
            UserError: The pool has no example with one of these ids, or the folder cannot be
                written to; then none is removed.
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
        """Return demonstrations for a query, in the order in which they are shown.

        Raises:
            UserError: The pool is too small, or the query's image cannot be opened.
        """
        return list(self.select_all([query], shots)[0].examples)

    def neighbours(self, query: Query) -> list[int]:
        """Return the `question_id`s of the examples that the policy sees for a query, in order."""
        held = self._held
        rows = self._seen(held, hashed_query(query), 1)
        return [example.question_id for example in held.of(rows)]

    @torch.no_grad()
    def select_all(self, queries: Sequence[Query], shots: int) -> list[Selection]:
        """Return the selection for each query; errors as `select`."""
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
        # One query that sees the whole pool: the projections need not be copied.
        valid = torch.ones(1, len(held.examples), dtype=torch.bool)
        return policy.relate(torch.from_numpy(asked), held.projected[None], valid)

    def _seen(self, held: _Held, query: Query, shots: int) -> Rows:
        """Return the places of the examples that the policy sees for a query, in pool order."""
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
        """Return the places of a query's neighbours, in pool order; None if all are seen."""
        wanted = max(self.candidates or 0, shots)
        if self._index is None or len(held.examples) - len(own) <= wanted:
            return None
        found = self._index.nearest(query, wanted + len(own)).tolist()
        # Another thread may have changed the index already.
        near = [held.rows[number] for number in found if number in held.rows]
        rows = [row for row in near if row not in own][:wanted]
        return np.sort(np.array(rows, dtype=np.int64)) if len(rows) >= shots else None

    @torch.no_grad()
    def _take(self, added: Sequence[Example], seen: Floats) -> None:
        """Add examples to what is held, with their features [added, candidate_size]."""
        fresh, held = self.selector.policy.project(torch.from_numpy(seen)), self._held
        projected = torch.cat([held.projected, fresh]) if held.examples else fresh
        if self._index is not None:
            self._index.add([example.question_id for example in added], added)
        self._known |= {_content(example): example.question_id for example in added}
        self._held = _with_places(held, added, projected)


_EMPTY: Final = _Held((), {}, {}, torch.zeros(0, 0))


def _shown(examples: Iterable[Example]) -> list[Example]:
    """Return examples with the hashes of their images; UserError if one cannot be shown."""
    found = [replace(e, image_sha256=e.image_sha256 or opened_sha256(e.image)) for e in examples]
    check_texts(found)
    return found


def _content(example: Example) -> _Content:
    """Return what tells an example from others: its image, question and answer."""
    return example.image_sha256, example.question, example.answer


def _with_places(held: _Held, added: Sequence[Example], projected: Tensor) -> _Held:
    """Return new content: `held` with `added` at its end; `projected` is that of all of them."""
    first = len(held.examples)
    rows, images = dict(held.rows), dict(held.images)
    for row, example in enumerate(added, start=first):
        rows[example.question_id] = row
        images[example.image_sha256] = (*images.get(example.image_sha256, ()), row)
    return _Held((*held.examples, *added), rows, images, projected)


def _not_needed(_rows: Rows) -> Floats:
    raise AssertionError("candidates are projected already")
