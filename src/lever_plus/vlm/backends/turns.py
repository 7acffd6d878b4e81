"""A prompt as servers get it: chat messages in OpenAI's form, each image as a data URL."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import image_url
from lever_plus.vlm.prompt import CHAT, Message, PromptFormat, messages

KEPT_IMAGES: Final = 1024
"""How many data URLs are kept in memory."""
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)


def chat_turns(
    demonstrations: Sequence[Example], query: Query | None, prompt: PromptFormat = CHAT
) -> list[Message]:
    """Return demonstrations and a query as messages.

    Args:
        demonstrations: The demonstrations, in prompt order.
        query: The query; None for the demonstrations alone.
        prompt: Style and instruction.

    Raises:
        UserError: An image cannot be read or was changed, or a text cannot be in a prompt.
    """
    shown: list[Example | Query] = [*demonstrations, *([] if query is None else [query])]
    check_images(shown)
    images = iter(shown)
    turns = messages(demonstrations, query, prompt)
    for turn in turns:
        for part in turn["content"]:
            if part["type"] == "image":
                url = _url(next(images).image)
                part.update({"type": "image_url", "image_url": {"url": url}})
    return turns
