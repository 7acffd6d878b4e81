"""A selector with its pool, for questions and images in the forms that other programs use."""

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
    """Chooses demonstrations; several threads may use it, and add examples, at the same time.

    Attributes:
        selector: Any selector.
        shots: How many demonstrations it chooses; a selector that `stops` may choose fewer.
    """

    def __init__(
        self,
        selector: Selector,
        pool: Sequence[Example] | LivePool,
        shots: int,
        folder: str | Path | None = None,
    ) -> None:
        """Prepare the pool.

        Args:
            selector: Any selector.
            pool: The examples to choose from, in order, or a `LivePool` of this selector.
            shots: How many demonstrations to choose.
            folder: Folder for the images of added examples that come without a file; None uses the
                folder of a `LivePool` that has one, or else a temporary folder.

        Raises:
            UserError: An image of the pool can't be read, or the pool belongs to another selector.
        """
        self.selector, self.shots = selector, shots
        self._lock, self._urls = threading.Lock(), dict[str, str]()
        self._live = _live(selector, pool)
        self._listed = [] if self._live else [hashed(e) for e in cast(Sequence[Example], pool)]
        kept = self._live.images if self._live else None
        self._pictures = Pictures(kept if folder is None else folder)

    @property
    def pool(self) -> Sequence[Example]:
        """The examples to choose from, in order."""
        return self._live.examples if self._live else tuple(self._listed)

    def choose(self, image: object, question: object) -> tuple[Example, ...]:
        """Return the demonstrations for a question, in the order in which they are shown.

        Args:
            image: A path, a data URL, or the bytes of an image file.
            question: The question about the image, a string.

        Raises:
            UserError: The image can't be opened, the question is not a usable text, or the pool is
                too small.
        """
        # An image that came as bytes is written to a file, for as long as it is needed.
        with Pictures() as pictures:
            return self.choose_all([query_of(pictures, image, question)])[0].examples

    def choose_all(self, queries: Sequence[Query], shots: int | None = None) -> list[Selection]:
        """Return the demonstrations for each of several questions, with their log-probabilities.

        Args:
            queries: The questions, made by `query_of`.
            shots: How many to choose this time; None: `self.shots`.

        Raises:
            UserError: The pool is too small, or the selector can't pick as many.
        """
        count = self.shots if shots is None else shots
        if self._live:
            return self._live.select_all(queries, count)
        return select_all(self.selector, queries, [self._listed] * len(queries), count)

    def add(self, image: object, question: object, answer: object) -> int:
        """Add an example to the end of the pool; return the `question_id` that it got.

        Args:
            image: A path, a data URL, or the bytes of an image file.
            question: The question about the image, a string.
            answer: The answer to it, a string.

        Raises:
            UserError: The image can't be opened, or a text can't be part of a prompt.
        """
        texts = text_of(question, "question"), text_of(answer, "answer")
        added = hashed(Example(self._pictures.path(_given(image)), *texts))
        if self._live:
            return self._live.add([added])[0]
        with self._lock:
            number = next(fresh_ids(each.question_id for each in self._listed))
            # A new list: a choice that is under way keeps the pool that it began with.
            self._listed = [*self._listed, replace(added, question_id=number)]
        return number

    def url(self, example: Example) -> str:
        """Return the image of an example of the pool as a data URL, which is made only once.

        Raises:
            UserError: The image can't be read any more.
        """
        if example.image_sha256 not in self._urls:
            self._urls[example.image_sha256] = image_url(example.image)
        return self._urls[example.image_sha256]

    def __deepcopy__(self, _memo: object) -> "Chooser":
        """Return itself: optimisers such as DSPy's copy their modules for every trial."""
        return self


def _live(selector: Selector, pool: Sequence[Example] | LivePool) -> LivePool | None:
    if isinstance(pool, LivePool):
        if pool.selector is not selector:
            raise UserError(
                "this pool belongs to another selector: give the selector that it was made with."
            )
        return pool
    if isinstance(selector, LearnedSelector):
        return LivePool(selector, pool, candidates=None)
    return None


def query_of(pictures: Pictures, image: object, question: object) -> Query:
    """Return the query for an image and a question; arguments as in `Chooser.choose`.

    Args:
        pictures: Keeps the file of an image that came without one; it must outlive the query.
        image: A path, a data URL, or the bytes of an image file.
        question: The question about the image, a string.

    Raises:
        UserError: The image can't be opened, or the question is not a usable text.
    """
    text = text_of(question, "question")
    return hashed_query(Query(pictures.path(_given(image)), text))


def _given(image: object) -> object:
    if image is None:
        raise UserError('"image" is missing: every question needs an image.')
    return image


def text_of(text: object, name: str) -> str:
    """Return a question or an answer that can be part of a prompt.

    Args:
        text: The question or answer.
        name: What the error calls it.

    Raises:
        UserError: It is not a string, or can't be part of a prompt.
    """
    if not isinstance(text, str):
        raise UserError(f'"{name}" is missing or is not a string: send a string.')
    if why := why_no_text(text):
        raise UserError(f'"{name}" {why}.')
    return text
