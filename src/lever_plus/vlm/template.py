"""A processor's chat template: code from the model's folder, which may fail or never end."""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType
from typing import Any, Final

from lever_plus.errors import UserError

SECONDS: Final = 5.0
"""How long a template may run while it is tried."""
TEMPLATE: Final = "<template>"
"""The file name that Jinja gives to a template's code."""
LONGEST: Final = 10_000_000
"""Largest number of characters in a prompt: tokenizing a longer one would fill the memory."""
AT_ONCE: Final = {"enable_thinking": False, "thinking": False}
"""{switch of a template: the value it gets, here or on a server}. They turn off thinking: answers
are short, and a thought would use up their tokens."""
THOUGHT: Final = re.compile(r"[<\[\u25c1]\|?(/?)[\w:]*(?:think|thought)\w*\|?[>\]\u25b7]", re.I)
"""A mark that begins a thought or, with the slash, ends one."""


def name_of(processor: Any) -> str:
    """Return the model's name in errors: its folder, if that is known."""
    name = getattr(processor.tokenizer, "name_or_path", "")
    return str(name or type(processor).__name__)


def applied(processor: Any, turns: Sequence[dict[str, Any]], *, generation: bool) -> str:
    """Return the prompt that a chat template makes of messages.

    Args:
        processor: A Hugging Face processor with a chat template.
        turns: Messages whose contents are lists of parts (text, image).
        generation: Whether the beginning of the answer's turn is added.

    Raises:
        UserError: The template fails, or its result is too long or not a text.
    """
    try:
        text = processor.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=generation, **told(processor)
        )
    except Exception as error:  # errors of Jinja, and any that Python code raises
        lines = str(error).splitlines() or [type(error).__name__]
        raise broken(processor, f"fails ({lines[0]})") from error
    if not isinstance(text, str) or len(text) > LONGEST:
        raise broken(processor, f"makes no text of up to {LONGEST:,} characters")
    return text


def told(processor: Any) -> dict[str, bool]:
    """Return the switches that a chat template gets: not to think, if it knows such a switch."""
    return _told(str(processor.chat_template))


@lru_cache
def _told(template: str) -> dict[str, bool]:
    words = set(re.findall(r"\w+", template))
    return {switch: value for switch, value in AT_ONCE.items() if switch in words}


def check_answers_at_once(processor: Any, end: str) -> None:
    """Refuse a model that would use the few tokens of its answer for thinking.

    Args:
        processor: A Hugging Face processor.
        end: The end of a prompt, after the question, where the answer begins.

    Raises:
        UserError: A thought begins there and does not end.
    """
    marks = list(THOUGHT.finditer(end))
    if marks and not marks[-1][1]:
        raise UserError(
            f"{name_of(processor)} thinks before it answers: its chat template begins every answer "
            f"with {marks[-1][0]}, and has no switch (enable_thinking) that turns that off. Use a "
            "model that answers at once, such as its Instruct variant."
        )


def broken(processor: Any, why: str) -> UserError:
    """Return the error for a chat template that cannot be used; `why` follows the name."""
    return UserError(
        f"the chat template of {name_of(processor)} {why}: correct chat_template.jinja in the "
        "model's folder, or set vlm.prompt.style to flat and remove the template."
    )


@contextmanager
def in_time() -> Iterator[None]:
    """In this block and thread, make templates fail that run longer than `SECONDS`."""
    end, before = time.monotonic() + SECONDS, sys.gettrace()

    def watch(frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() > end and _of_a_template(frame):
            raise TimeoutError(f"it does not end within {SECONDS:.0f} seconds")
        return watch if _file_of(frame) == TEMPLATE else None

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _of_a_template(frame: FrameType | None) -> bool:
    """Return whether a frame is part of running or compiling a template."""
    while frame is not None and _file_of(frame) != TEMPLATE and "jinja2" not in _file_of(frame):
        frame = frame.f_back
    return frame is not None


def _file_of(frame: FrameType) -> str:
    return frame.f_code.co_filename
