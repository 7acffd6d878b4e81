"""How many tokens a prompt has, image tokens included, without running the model.

The length of a prompt is the sum of its parts: the head, each demonstration and the query, each
tokenized once; the number of tokens of an image depends on its size alone. Whether this is true is
checked, for each number of demonstrations, with the first such prompt, which is processed whole.
"""

from collections.abc import Sequence
from typing import Any

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import open_image
from lever_plus.hub.processing import process
from lever_plus.vlm.prompt import PromptFormat, Sample, render
from lever_plus.vlm.request import Request
from lever_plus.vlm.turns import text_ids

Size = tuple[int, int]
"""Width and height of an image, in pixels."""


class Lengths:
    """Counts the tokens of prompts, for one processor and prompt format."""

    def __init__(self, processor: Any, prompt: PromptFormat) -> None:
        """Take what prompts are made with, and measure the head that all prompts begin with."""
        self._processor, self._prompt = processor, prompt
        one, two = (self._text([Sample()] * shots, None) for shots in (1, 2))
        self._head = 2 * one - two
        self._turns: dict[Example | Query, int] = {}
        self._sizes: dict[str, Size] = {}
        self._added: dict[Size, int] = {}
        self._exact: dict[int, bool] = {}

    def of(self, requests: Sequence[Request]) -> list[int] | None:
        """Return the number of tokens of each prompt; None if it is not the sum of the parts.

        Raises:
            UserError: A text cannot be in a prompt, or an image cannot be read.
        """
        for request in requests:
            shown = len(request.demonstrations)
            if shown not in self._exact:
                self._exact[shown] = self._sum(request) == self._whole(request)
            if not self._exact[shown]:
                return None
        return [self._sum(request) for request in requests]

    def _sum(self, request: Request) -> int:
        shown = sum(map(self._turn, request.demonstrations))
        return self._head + shown + self._turn(request.query)

    def _turn(self, shown: Example | Query) -> int:
        """Return how many tokens a demonstration or a query adds to a prompt."""
        if shown not in self._turns:
            parts = ([], shown) if isinstance(shown, Query) else ([shown], None)
            self._turns[shown] = self._text(*parts) - self._head + self._image(shown)
        return self._turns[shown]

    def _image(self, shown: Example | Query) -> int:
        """Return how many tokens an image has beyond those of its placeholder."""
        if shown.image not in self._sizes:
            check_images([shown])
            image = open_image(shown.image)
            self._sizes[shown.image] = image.size
            if image.size not in self._added:
                text = render(self._processor, [], Sample(), self._prompt)
                ids = process(self._processor, [text], [[image]], "left")["input_ids"]
                self._added[image.size] = ids.shape[1] - self._text([], Sample())
        return self._added[self._sizes[shown.image]]

    def _text(self, demonstrations: Sequence[Any], query: Any) -> int:
        """Return the number of tokens of a prompt in which images are placeholders."""
        text = render(self._processor, demonstrations, query, self._prompt)
        return len(text_ids(self._processor, text))

    def _whole(self, request: Request) -> int:
        """Return the number of tokens that the processor makes of a whole prompt."""
        text = render(self._processor, request.demonstrations, request.query, self._prompt)
        images = [open_image(path) for path in request.images]
        return int(process(self._processor, [text], [images], "left")["input_ids"].shape[1])
