"""A selector with a pool, asked questions as other programs hand them over."""

import threading
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

from lever_plus.data.examples import Example, Query, fresh_ids, hashed, hashed_query
from lever_plus.data.images import image_url
from lever_plus.data.texts import why_no_text
from lever_plus.errors import UserError
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selection, Selector, select_all


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
        return self.choose_all([self.query(image, question)])[0].examples

    def query(self, image: object, question: object) -> Query:
        """Return a question as it is asked; arguments and errors as `choose`."""
        asked = _text(question, "question")
        return hashed_query(Query(self._image(image), asked))

    def choose_all(self, queries: Sequence[Query], shots: int | None = None) -> list[Selection]:
        """Return what is chosen for each of several questions, with its probabilities.

        Args:
            queries: From `query`.
            shots: How many are chosen this time; None: as many as always.

        Raises:
            UserError: The pool is too small, or the selector picks less.
        """
        pools = [self.pool] * len(queries)
        return select_all(self.selector, queries, pools, self.shots if shots is None else shots)

    def add(self, image: object, question: object, answer: object) -> int:
        """Add an example to the end of the pool and return its number, its `question_id`.

        Raises:
            UserError: The image does not open, or a text cannot be shown.
        """
        return self.add_all([(image, question, answer)])[0]

    def add_all(self, examples: Iterable[tuple[object, object, object]]) -> list[int]:
        """Add examples, (image, question, answer), to the end of the pool; see `add`.

        Either all of them are added, or none.
        """
        added = [
            hashed(
                Example(self._image(image), _text(question, "question"), _text(answer, "answer"))
            )
            for image, question, answer in examples
        ]
        with self._lock:
            numbers = list(islice(fresh_ids(e.question_id for e in self.pool), len(added)))
            # Whoever is choosing keeps the pool that it began with.
            numbered = zip(added, numbers, strict=True)
            self.pool = [*self.pool, *(replace(e, question_id=number) for e, number in numbered)]
        return numbers

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


def _text(text: object, name: str) -> str:
    """Return a question or an answer that a prompt can have."""
    if not isinstance(text, str):
        raise UserError(f'"{name}" is missing, or is no text.')
    if why := why_no_text(text):
        raise UserError(f'"{name}" {why}.')
    return text
