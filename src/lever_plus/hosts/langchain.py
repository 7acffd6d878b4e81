"""A trained selector as LangChain's example selector.

    selector = LeverPlusExampleSelector(load_selector(checkpoint), read_pool("pool.jsonl"))
    FewShotChatMessagePromptTemplate(
        input_variables=["image", "question"], example_selector=selector, example_prompt=...
    )

Interface: `langchain_core.example_selectors.BaseExampleSelector`. Its values are texts, so an image
is a path or a data URL.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lever_plus.data.examples import Example
from lever_plus.errors import UserError, needs
from lever_plus.hosts.chooser import Chooser
from lever_plus.selectors.base import Selector
from lever_plus.selectors.live_pool import LivePool

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


class LeverPlusExampleSelector(BaseExampleSelector):
    """Chooses the demonstrations of a prompt for its image and question."""

    def __init__(
        self,
        selector: Selector,
        pool: Sequence[Example] | LivePool,
        shots: int = 2,
        *,
        images: Literal["url", "path"] = "url",
        folder: str | Path | None = None,
    ) -> None:
        """Keep all of it.

        Args:
            selector: Any selector, such as `load_selector` returns.
            pool: What it chooses from; `add_example` adds to it.
            shots: How many it chooses; a selector that `stops` may choose fewer.
            images: What the image of a chosen example is given as: a data URL, which fits into a
                message, or the path of its file.
            folder: Gets the images that come as data URLs; None: a temporary one.

        Raises:
            SelectionError: An image of the pool cannot be read.
        """
        self._as_url = images == "url"
        with _explained():
            self._chooser = Chooser(selector, pool, shots, folder)

    @property
    def pool(self) -> Sequence[Example]:
        """What is chosen from, in order."""
        return tuple(self._chooser.pool)

    def add_example(self, example: dict[str, str]) -> int:
        """Add an example to the end of the pool and return its number, its `question_id`.

        Args:
            example: {"image": path or data URL, "question": ..., "answer": ...}.

        Raises:
            SelectionError: A key is missing, the image does not open, or a text cannot be shown.
        """
        with _explained():
            values = (example.get(name) for name in ("image", "question", "answer"))
            return self._chooser.add(*values)

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
            asked = (input_variables.get(name) for name in ("image", "question"))
            return [self._shown(example) for example in self._chooser.choose(*asked)]

    def _shown(self, example: Example) -> dict[str, str]:
        image = self._chooser.url(example) if self._as_url else example.image
        return {"image": image, "question": example.question, "answer": example.answer}
