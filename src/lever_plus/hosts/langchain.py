"""A trained selector as LangChain's example selector.

    selector = LeverPlusExampleSelector(load_selector(checkpoint), read_pool("pool.jsonl"))
    FewShotChatMessagePromptTemplate(
        input_variables=["image", "question"], example_selector=selector, example_prompt=...
    )

The interface is `langchain_core.example_selectors.BaseExampleSelector`. Its values are strings, so
an image is given as a path or a data URL.
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
    """Demonstrations can't be chosen; the message says why, and what to do."""


@contextmanager
def _explained() -> Iterator[None]:
    """Turn a UserError into an error that LangChain knows."""
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
        """Prepare the pool.

        Args:
            selector: Any selector, for example from `load_selector`.
            pool: The examples to choose from, or a `LivePool` of this selector; `add_example` adds
                to it.
            shots: How many demonstrations to choose; a selector that `stops` may choose fewer.
            images: How images of chosen examples are returned: as a data URL ("url"), which can be
                part of a message, or as the path of the file ("path").
            folder: Folder for added images that come as data URLs; None uses the folder of a
                `LivePool` that has one, or else a temporary folder.

        Raises:
            SelectionError: An image of the pool can't be read.
        """
        self._as_url = images == "url"
        with _explained():
            self._chooser = Chooser(selector, pool, shots, folder)

    @property
    def pool(self) -> Sequence[Example]:
        """The examples to choose from, in order."""
        return tuple(self._chooser.pool)

    def add_example(self, example: dict[str, str]) -> int:
        """Add an example to the end of the pool; return the `question_id` that it got.

        Args:
            example: {"image": path or data URL, "question": ..., "answer": ...}.

        Raises:
            SelectionError: A key is missing, the image can't be opened, or a text can't be part of
                a prompt.
        """
        with _explained():
            values = (example.get(name) for name in ("image", "question", "answer"))
            return self._chooser.add(*values)

    def select_examples(self, input_variables: dict[str, str]) -> list[dict[str, Any]]:
        """Return the demonstrations for a question, in the order in which they are shown.

        Args:
            input_variables: The prompt's variables "image" (path or data URL) and "question";
                others are ignored.

        Returns:
            A dictionary with "image", "question" and "answer" for every chosen example.

        Raises:
            SelectionError: A key is missing, the image can't be opened, or the pool is too small.
        """
        with _explained():
            asked = (input_variables.get(name) for name in ("image", "question"))
            return [self._shown(example) for example in self._chooser.choose(*asked)]

    def _shown(self, example: Example) -> dict[str, str]:
        image = self._chooser.url(example) if self._as_url else example.image
        return {"image": image, "question": example.question, "answer": example.answer}
