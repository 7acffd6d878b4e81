"""A selector with a pool, asked questions as other programs hand them over."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from lever_plus.data.examples import Example, Query, fresh_ids, hashed, hashed_query
from lever_plus.data.images import image_url
from lever_plus.data.texts import why_no_text
from lever_plus.errors import UserError
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selection, Selector, select_all
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import LivePool


class Chooser:
    """Chooses demonstrations; may be asked, and given examples, by several threads at once.

    Attributes:
        selector: Any selector.
        shots: How many are chosen; a selector that `stops` may choose fewer.
    """

    def __init__(
        self,
        selector: Selector,
        pool: Sequence[Example] | LivePool,
        shots: int,
        folder: str | Path | None = None,
    ) -> None:
        """Keep all of it.

        Args:
            selector: See above.
            pool: What it chooses from, in order; a `LivePool` is one of this selector.
            shots: See above.
            folder: Gets the images of added examples that have no file; None: that of a pool that
                is kept, else a temporary one.

        Raises:
            UserError: An image of the pool cannot be read, or the pool is another selector's.
        """
        self.selector, self.shots = selector, shots
        self._lock, self._urls = threading.Lock(), dict[str, str]()
        self._live = _live(selector, pool)
        self._listed = [] if self._live else [hashed(e) for e in cast(Sequence[Example], pool)]
        kept = self._live.images if self._live else None
        self._pictures = Pictures(kept if folder is None else folder)

    @property
    def pool(self) -> Sequence[Example]:
        """What is chosen from, in order."""
        return self._live.examples if self._live else tuple(self._listed)

    def choose(self, image: object, question: object) -> tuple[Example, ...]:
        """Return the demonstrations for a question, in the order they are to be shown in.

        Args:
            image: A path, a data URL or the bytes of a file.
            question: A text.

        Raises:
            UserError: The image does not open, the question is none, or the pool is too small.
        """
        # An image that came as bytes is a file as long as it is needed.
        with Pictures() as pictures:
            return self.choose_all([query_of(pictures, image, question)])[0].examples

    def choose_all(self, queries: Sequence[Query], shots: int | None = None) -> list[Selection]:
        """Return what is chosen for each of several questions, with its probabilities.

        Args:
            queries: From `query_of`.
            shots: How many are chosen this time; None: as many as always.

        Raises:
            UserError: The pool is too small, or the selector picks less.
        """
        count = self.shots if shots is None else shots
        if self._live:
            return self._live.select_all(queries, count)
        return select_all(self.selector, queries, [self._listed] * len(queries), count)

    def add(self, image: object, question: object, answer: object) -> int:
        """Add an example to the end of the pool and return its number, its `question_id`.

        Raises:
            UserError: The image does not open, or a text cannot be shown.
        """
        texts = text_of(question, "question"), text_of(answer, "answer")
        added = hashed(Example(self._pictures.path(_given(image)), *texts))
        if self._live:
            return self._live.add([added])[0]
        with self._lock:
            number = next(fresh_ids(each.question_id for each in self._listed))
            # Whoever is choosing keeps the pool that it began with.
            self._listed = [*self._listed, replace(added, question_id=number)]
        return number

    def url(self, example: Example) -> str:
        """Return the image of an example of the pool as a data URL, made once.

        Raises:
            UserError: It cannot be read any more.
        """
        if example.image_sha256 not in self._urls:
            self._urls[example.image_sha256] = image_url(example.image)
        return self._urls[example.image_sha256]

    def __deepcopy__(self, _memo: object) -> "Chooser":
        """Return itself: programs copy their modules for every trial of an optimisation."""
        return self


def _live(selector: Selector, pool: Sequence[Example] | LivePool) -> LivePool | None:
    if isinstance(pool, LivePool):
        if pool.selector is not selector:
            raise UserError("this pool belongs to another selector: give the one that it has.")
        return pool
    if isinstance(selector, LearnedSelector):
        return LivePool(selector, pool, candidates=None)
    return None


def query_of(pictures: Pictures, image: object, question: object) -> Query:
    """Return a question as it is asked; `pictures` keeps its image, see `Chooser.choose`.

    Raises:
        UserError: The image does not open, or the question is none.
    """
    text = text_of(question, "question")
    return hashed_query(Query(pictures.path(_given(image)), text))


def _given(image: object) -> object:
    if image is None:
        raise UserError('"image" is missing: a question is asked about an image.')
    return image


def text_of(text: object, name: str) -> str:
    """Return a question or an answer that a prompt can have; UserError calls it by its name."""
    if not isinstance(text, str):
        raise UserError(f'"{name}" is missing, or is no text.')
    if why := why_no_text(text):
        raise UserError(f'"{name}" {why}.')
    return text
