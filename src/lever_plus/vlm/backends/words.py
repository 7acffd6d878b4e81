"""Messages of servers, shortened and without keys, and advice on what to do about them."""

import html
import json
import re
from typing import Any, Final

from lever_plus.files.secrets import without_secrets

LONGEST: Final = 300
"""Characters of a server's message that are shown."""
_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)|<h1[^>]*>([^<]*)", re.IGNORECASE)
_TOO_LONG: Final = re.compile(
    r"context length|context size|context window|maximum context|max_model_len|too many tokens"
    r"|longer than the (?:maximum|model)|prompt is too long|input is too long"
    r"|max_tokens must be at least 1, got 0",
    re.IGNORECASE,
)
_TOO_MANY_IMAGES: Final = re.compile(
    r"at most \d+ (?:image|item)|too many images|image.{0,40}(?:limit|maximum)"
    r"|limit_mm_per_prompt|limit-mm-per-prompt",
    re.IGNORECASE,
)
_NO_IMAGES: Final = re.compile(
    r"not a multimodal model|does not support image|image_url.{0,40}(?:not|only) ?support"
    r"|image input is not supported|unknown part type",
    re.IGNORECASE,
)

_BUSY: Final = re.compile(r"\bbusy\b|overloaded|too many requests|queue is full", re.IGNORECASE)
LONGER: Final = (
    "allow longer prompts (vLLM: --max-model-len), or lower pointer.shots, vlm.max_new_tokens or "
    "the size of the images"
)
"""Advice for a prompt that is too long."""


def quoted(text: str, longest: int = LONGEST) -> str:
    """Return a text from outside as one printable line, shortened and without keys."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    line = without_secrets(" ".join(printable.split()))
    return line if len(line) <= longest else line[: longest - 3] + "..."


def words_of(read: bytes) -> str:
    """Return the message in an error that a server sent as JSON, HTML or text."""
    text = read.decode("utf-8", "replace")
    try:
        said = _message(json.loads(text), 0)
    except (ValueError, RecursionError):
        said = ""
    if said:
        return quoted(said)
    title = _TITLE.search(text[:20_000])
    return quoted(html.unescape(title[1] or title[2]) if title else text)


def _message(content: Any, depth: int) -> str:
    """Return the first text at the places where servers put messages, with its code if any."""
    if isinstance(content, str) or depth > 4:
        return content if isinstance(content, str) else ""
    if isinstance(content, list):
        return next((said for each in content[:5] if (said := _message(each, depth + 1))), "")
    if not isinstance(content, dict):
        return ""
    for name in ("error", "message", "detail", "msg", "errors", "error_description"):
        if said := _message(content.get(name), depth + 1):
            code = content.get("code") or content.get("type")
            shown = isinstance(code, str) and name == "message" and code not in said
            return f"{said} [{code}]" if shown else said
    return ""


def is_about_size(said: str) -> bool:
    """Return whether a message says that a prompt is too long or has too many images."""
    return bool(_TOO_MANY_IMAGES.search(said) or _TOO_LONG.search(said))


def advice_for(status: int, said: str, *, passing: bool, key: str) -> str:
    """Return what to do about a request that a server refused.

    Args:
        status: HTTP status.
        said: The server's message.
        passing: Whether the same request may succeed later.
        key: Name of the environment variable with the key.
    """
    if _TOO_MANY_IMAGES.search(said):
        return (
            "a prompt has an image for each demonstration and one for the query: allow that many "
            "(vLLM: --limit-mm-per-prompt '{\"image\": 8}'), or lower pointer.shots"
        )
    if _TOO_LONG.search(said):
        return LONGER
    if _NO_IMAGES.search(said):
        return "set vlm.model to a model that sees images"
    if status in (401, 403):
        return f"put a key that this server accepts into the environment variable {key}"
    if status == 413:
        return "allow larger requests in the server, or in the proxy before it"
    if status == 404:
        return "correct vlm.model, or vlm.url, which usually ends in /v1"
    if "insufficient_quota" in said:
        return "the account has no credit left: top it up, or use another key"
    if status == 429 or (passing and _BUSY.search(said)):
        return "lower vlm.concurrency; the answers so far are stored: run again to continue"
    if passing:
        return "see its log; the answers so far are stored: run again to continue"
    return "correct what it names, in the server or in the section vlm of params.yaml"
