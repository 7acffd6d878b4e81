"""Whether prompts fit into a server's context length, checked before any of them is asked.

Without this check a run would end at the first prompt that is too long, perhaps after hours; and a
server may silently cut an answer short if the prompt leaves too little room for it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lever_plus.errors import UserError
from lever_plus.vlm.backends.exchange import Server, ServerError
from lever_plus.vlm.backends.words import LONGER, is_about_size, quoted
from lever_plus.vlm.request import Request

Size = tuple[int, int]
"""The size of a prompt: number of images, number of characters in its texts."""


class Fitting:
    """Remembers the sizes of prompts that fit."""

    def __init__(self) -> None:
        """Start with no known sizes."""
        self._fit: list[Size] = []
        self._silent: set[str] = set()

    async def check(
        self,
        servers: Sequence[Server],
        requests: Iterable[Request],
        asked: Callable[[Request], dict[str, Any]],
        most: int,
    ) -> None:
        """Refuse prompts that are too long; only the two largest ones by `Size` are tried.

        Args:
            servers: Each is asked for the number of tokens of a prompt; a server that does not
                offer this is asked once.
            requests: One or more prompts.
            asked: Returns what to post to a server's /tokenize for a prompt.
            most: Largest number of tokens in an answer.

        Raises:
            UserError: A prompt is too long for a server, or has too many images.
        """
        sizes = {request: _size(request) for request in requests}
        most_images = max(sizes, key=lambda request: sizes[request])
        most_text = max(sizes, key=lambda request: sizes[request][1])
        for request in (most_images, most_text):
            if any(_inside(sizes[request], fit) for fit in self._fit):
                continue
            for server in servers:
                if server.url not in self._silent:
                    await self._check(server, request, asked(request), most)
            self._fit.append(sizes[request])

    async def _check(
        self, server: Server, request: Request, body: dict[str, Any], most: int
    ) -> None:
        try:
            reply = await server.ask("/tokenize", body)
        except ServerError as error:
            if is_about_size(str(error)):
                raise
            if not error.passing:
                self._silent.add(server.url)
            return
        count, longest = reply.get("count"), reply.get("max_model_len")
        if type(count) is not int or type(longest) is not int:
            self._silent.add(server.url)
        elif count + most > longest:
            raise UserError(
                f"{server.shown} allows at most {longest} tokens for a prompt and its answer. "
                f"With {len(request.demonstrations)} demonstrations and the question "
                f"{quoted(request.query.question, 80)!r} a prompt has {count}, and an answer up to "
                f"{most}: {LONGER}."
            )


def _size(request: Request) -> Size:
    shown = [text for each in request.demonstrations for text in (each.question, each.answer)]
    texts = [*shown, request.query.question, request.answer or ""]
    return len(request.demonstrations) + 1, sum(map(len, texts))


def _inside(size: Size, other: Size) -> bool:
    return size[0] <= other[0] and size[1] <= other[1]
