"""Images sent as hashes of their content, so that each is sent to a server only once.

Each image part of a message has a `uuid`; if the server has the image already, the image itself is
left out. Requests with a uuid and without do not share the prefix cache, so a run uses either all
the time.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.prompt import Message

KEPT_HASHES: Final = 1024
"""How many hashes of data URLs are kept in memory."""
MISS: Final = "cache miss for image"
"""What vLLM says if it does not have the image of a uuid."""


@lru_cache(maxsize=KEPT_HASHES)
def _uuid(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


class Pictures:
    """The images that a server should have."""

    def __init__(self) -> None:
        """Start with no images."""
        self._sent: set[str] = set()

    def short(self, turns: list[Message]) -> list[Message]:
        """Return messages without the images that the server should have."""
        return _changed(turns, lambda url, uuid: None if uuid in self._sent else {"url": url})

    def whole(self, turns: list[Message]) -> list[Message]:
        """Return messages with all images and their uuids."""
        return _changed(turns, lambda url, _uuid: {"url": url})

    def keep(self, turns: list[Message]) -> None:
        """Remember that the server has the images of these messages."""
        self._sent |= {_uuid(url) for url in urls(turns)}


def unknown(turns: list[Message]) -> list[Message]:
    """Return messages with uuids that no server knows, without the images."""
    return _changed(turns, lambda _url, _uuid: None, lambda url: _uuid(f"{url} not sent"))


def urls(turns: list[Message]) -> list[str]:
    """Return the data URLs of messages' images."""
    return [str(p["image_url"]["url"]) for turn in turns for p in _parts(turn) if _is_image(p)]


def is_miss(error: UserError) -> bool:
    """Return whether a server says that it does not have the image of a uuid."""
    return MISS in str(error).lower()


async def takes_uuids(
    ask: Callable[[list[Message]], Awaitable[dict[str, Any]]], turns: list[Message]
) -> bool:
    """Return whether a server accepts uuids instead of images, and gives the same answers.

    Args:
        ask: Returns the reply to messages.
        turns: Messages with images as data URLs.

    Raises:
        UserError: The server cannot be reached, is busy, or refuses the messages with images.
    """
    plain, sent = await ask(turns), Pictures()
    try:
        if [await ask(unknown(turns))]:  # it answers although it lacks the image
            return False
    except ServerError as error:
        if not is_miss(error):
            if error.passing:
                raise
            return False
    try:
        replies = [await ask(sent.whole(turns))]
        sent.keep(turns)
        replies.append(await ask(sent.short(turns)))
    except ServerError as error:
        if error.passing:
            raise
        return False
    return all(_said(reply) == _said(plain) for reply in replies)


def _said(reply: dict[str, Any]) -> tuple[Any, Any]:
    """Return the messages of a reply, and the length of its prompt in tokens."""
    usage = reply.get("usage")
    choices = [choice.get("message") for choice in reply.get("choices") or []]
    return choices, usage.get("prompt_tokens") if isinstance(usage, dict) else None


def _changed(
    turns: list[Message],
    shown: Callable[[str, str], dict[str, str] | None],
    uuid_of: Callable[[str], str] = _uuid,
) -> list[Message]:
    def part(old: dict[str, Any]) -> dict[str, Any]:
        if not _is_image(old):
            return old
        url = str(old["image_url"]["url"])
        return {"type": "image_url", "image_url": shown(url, uuid_of(url)), "uuid": uuid_of(url)}

    return [
        {**turn, "content": [part(old) for old in _parts(turn)]} if _parts(turn) else turn
        for turn in turns
    ]


def _parts(turn: Message) -> list[dict[str, Any]]:
    content = turn["content"]
    return content if isinstance(content, list) else []


def _is_image(part: dict[str, Any]) -> bool:
    return bool(part["type"] == "image_url")
