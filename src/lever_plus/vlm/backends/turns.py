"""A prompt as servers get it: turns of a chat in OpenAI's form, every image as a data URL."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from lever_plus.data.examples import Example, Query, check_images
from lever_plus.data.images import image_url
from lever_plus.vlm.prompt import CHAT, Message, PromptFormat, messages

KEPT_IMAGES: Final = 1024
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)


def chat_turns(
    demonstrations: Sequence[Example], query: Query | None, prompt: PromptFormat = CHAT
) -> list[Message]:
    """Return demonstrations, and what is asked after them, as messages.

    Args:
        demonstrations: In the order in which they are shown.
        query: What is asked; None: the demonstrations alone.
        prompt: How they are shown.

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
