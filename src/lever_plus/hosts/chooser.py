"""A selector with a pool, asked for one question at a time as other programs hand it over."""

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from lever_plus.data.examples import Example, Query, fresh_ids, hashed, hashed_query
from lever_plus.data.images import image_url
from lever_plus.data.texts import why_no_text
from lever_plus.errors import UserError
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selector, select_all


class Chooser:
    """Chooses demonstrations; may be asked, and given examples, by several threads at once.

    Attributes:
        selector: Any selector.
        pool: What it chooses from, in order.
        shots: How many are chosen; a selector that `stops` may choose fewer.
    """

    def __init__(
        self,
        selector: Selector,
        pool: Sequence[Example],
        shots: int,
        folder: str | Path | None = None,
    ) -> None:
        """Keep all of it.

        Args:
            selector: See above.
            pool: See above.
            shots: See above.
            folder: Gets the images that have no file; None: a temporary one.

        Raises:
            UserError: An image of the pool cannot be read.
        """
        self.selector, self.shots = selector, shots
        self.pool = [hashed(example) for example in pool]
        self._pictures, self._lock = Pictures(folder), threading.Lock()
        self._urls: dict[str, str] = {}

    def choose(self, image: object, question: object) -> tuple[Example, ...]:
        """Return the demonstrations for a question, in the order they are to be shown in.

        Args:
            image: A path, a data URL or the bytes of a file.
            question: A text.

        Raises:
            UserError: The image does not open, the question is none, or the pool is too small.
        """
        asked = text_of(question, "question")
        query = hashed_query(Query(self._image(image), asked))
        return select_all(self.selector, [query], [self.pool], self.shots)[0].examples

    def add(self, image: object, question: object, answer: object) -> int:
        """Add an example to the end of the pool and return its number, its `question_id`.

        Raises:
            UserError: The image does not open, or a text cannot be shown.
        """
        texts = text_of(question, "question"), text_of(answer, "answer")
        added = hashed(Example(self._image(image), *texts))
        with self._lock:
            number = next(fresh_ids(each.question_id for each in self.pool))
            # Whoever is choosing keeps the pool that it began with.
            self.pool = [*self.pool, replace(added, question_id=number)]
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
        """Return one that shares the selector and the images, and has a pool of its own.

        Programs copy their modules for every trial of an optimisation.
        """
        return copy(self)

    def _image(self, image: object) -> str:
        if image is None:
            raise UserError('"image" is missing: a question is asked about an image.')
        return self._pictures.path(image)


def text_of(text: object, name: str) -> str:
    """Return a question or an answer that a prompt can have; UserError calls it by its name."""
    if not isinstance(text, str):
        raise UserError(f'"{name}" is missing, or is no text.')
    if why := why_no_text(text):
        raise UserError(f'"{name}" {why}.')
    return text
