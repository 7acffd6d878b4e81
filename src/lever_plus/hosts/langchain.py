"""A trained selector as LangChain's example selector.

    selector = LeverPlusExampleSelector(load_selector(checkpoint), read_pool("pool.jsonl"))
    FewShotChatMessagePromptTemplate(
        input_variables=["image", "question"], example_selector=selector, example_prompt=...
    )

Interface: `langchain_core.example_selectors.BaseExampleSelector`. Its values are texts, so an image
is a path or a data URL.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lever_plus.data.examples import Example, Query, fresh_ids, hashed, hashed_query
from lever_plus.data.images import image_url
from lever_plus.data.texts import why_no_text
from lever_plus.errors import UserError, needs
from lever_plus.hosts.pictures import Pictures
from lever_plus.selectors.base import Selector, select_all

with needs("langchain", "lever_plus.hosts.langchain"):
    from langchain_core.example_selectors import BaseExampleSelector
    from langchain_core.exceptions import LangChainException


class SelectionError(LangChainException, UserError):
    """Demonstrations cannot be chosen; it says why, and what to do."""


@contextmanager
def _explained() -> Iterator[None]:
    """Raise what goes wrong as LangChain's own kind of error."""
    try:
        yield
    except UserError as error:
        raise SelectionError(str(error)) from error


def _text(values: Mapping[str, str], name: str) -> str:
    """Return a question or an answer that a prompt can have."""
    text = values.get(name)
    if not isinstance(text, str):
        raise UserError(f'"{name}" is missing, or is no text.')
    if why := why_no_text(text):
        raise UserError(f'"{name}" {why}.')
    return text


class LeverPlusExampleSelector(BaseExampleSelector):
    """Chooses the demonstrations of a prompt for its image and question.

    Attributes:
        selector: Any selector, such as `load_selector` returns.
        pool: What it chooses from, in order; `add_example` adds to it.
        shots: How many it chooses; a selector that `stops` may choose fewer.
    """

    def __init__(
        self,
        selector: Selector,
        pool: Sequence[Example],
        shots: int = 2,
        *,
        images: Literal["url", "path"] = "url",
        folder: str | Path | None = None,
    ) -> None:
        """Keep all of it.

        Args:
            selector: See above.
            pool: See above.
            shots: See above.
            images: What the image of a chosen example is given as: a data URL, which fits into a
                message, or the path of its file.
            folder: Gets the images that come as data URLs; None: a temporary one.

        Raises:
            SelectionError: An image of the pool cannot be read.
        """
        self.selector, self.shots = selector, shots
        self._as_url, self._pictures, self._lock = (
            images == "url",
            Pictures(folder),
            threading.Lock(),
        )
        with _explained():
            self.pool = [hashed(example) for example in pool]

    def add_example(self, example: dict[str, str]) -> int:
        """Add an example to the end of the pool and return its number, a `question_id`.

        Args:
            example: {"image": path or data URL, "question": ..., "answer": ...}.

        Raises:
            SelectionError: A key is missing, the image does not open, or a text cannot be shown.
        """
        with _explained():
            question, answer = _text(example, "question"), _text(example, "answer")
            added = hashed(Example(self._image(example), question, answer))
            with self._lock:
                number = next(fresh_ids(each.question_id for each in self.pool))
                self.pool = [*self.pool, replace(added, question_id=number)]
        return number

    def select_examples(self, input_variables: dict[str, str]) -> list[dict[str, Any]]:
        """Return what is to be shown before a question, in this order.

        Args:
            input_variables: Of the prompt: "image" (path or data URL) and "question"; others are
                ignored.

        Returns:
            {"image", "question", "answer"} of every chosen example.

        Raises:
            SelectionError: A key is missing, the image does not open, or the pool is too small.
        """
        with _explained():
            question = _text(input_variables, "question")
            query = hashed_query(Query(self._image(input_variables), question))
            (chosen,) = select_all(self.selector, [query], [self.pool], self.shots)
            return [self._shown(example) for example in chosen.examples]

    def _image(self, values: dict[str, str]) -> str:
        if "image" not in values:
            raise UserError('"image" is missing: the prompt needs an image and a question.')
        return self._pictures.path(values["image"])

    def _shown(self, example: Example) -> dict[str, str]:
        image = image_url(example.image) if self._as_url else example.image
        return {"image": image, "question": example.question, "answer": example.answer}
