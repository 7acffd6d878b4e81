"""Finds where demonstrations belong in a chat of OpenAI's protocol, and puts them there.

A chat with exactly one image asks about that image. Demonstrations are put before the turn with the
image, and everything else stays as it is. So all requests of a conversation with further questions
about the same image show the same demonstrations.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lever_plus.vlm.prompt import Message, PromptFormat, asked_text

SEEN: Final = frozenset(
    {"image_url", "image", "input_image", "image_pil", "image_embeds", "video_url", "video"}
)
"""Types of message parts that count as images (or videos)."""


class Question(NamedTuple):
    """The one question about an image in a chat.

    Attributes:
        place: Position of its message in the chat, from 0.
        image: The image as the message gives it.
        text: The question, without the instruction.
    """

    place: int
    image: object
    text: str


def question_in(messages: object, prompt: PromptFormat) -> Question | str:
    """Return the question of a chat, or a phrase that says why it gets no demonstrations.

    Args:
        messages: The field `messages` of a request, unchecked.
        prompt: Its instruction is removed from the end of the question.
    """
    turns = [turn for turn in _listed(messages) if isinstance(turn, dict)]
    if not turns or len(turns) != len(_listed(messages)):
        return "no list of messages"
    seen = [
        (place, part)
        for place, turn in enumerate(turns)
        for part in _parts(turn)
        if isinstance(part.get("type"), str) and part["type"] in SEEN
    ]
    if len(seen) != 1:
        return "several images" if seen else "no image"
    ((place, part),) = seen
    if turns[place].get("role") != "user":
        return "an image in a turn that is not the user's"
    given = part.get("image_url")
    image = given.get("url") if isinstance(given, dict) else given
    if part["type"] != "image_url" or image is None:
        return "an image that is not sent as image_url"
    texts = [p["text"] for p in _parts(turns[place]) if _is_text(p)]
    text = "\n".join(texts).strip()
    if prompt.instruction and text.endswith(prompt.instruction):
        text = text.removesuffix(prompt.instruction).rstrip()
    return Question(place, image, text) if text else "an image without a question"


def with_demonstrations(
    messages: Sequence[Message], question: Question, shown: Sequence[Message], prompt: PromptFormat
) -> list[Message]:
    """Return a chat with demonstrations before its question.

    Args:
        messages: The chat.
        question: Its question, from `question_in`.
        shown: The turns of the demonstrations.
        prompt: Its instruction is put after the question, unless it is already there.
    """
    before, asked = messages[: question.place], messages[question.place]
    after = messages[question.place + 1 :]
    return [*before, *shown, _instructed(asked, prompt), *after]


def _instructed(turn: Message, prompt: PromptFormat) -> Message:
    places = [place for place, part in enumerate(turn["content"]) if _is_text(part)]
    last = turn["content"][places[-1]]
    if not prompt.instruction or last["text"].rstrip().endswith(prompt.instruction):
        return turn
    content = [*turn["content"]]
    content[places[-1]] = {**last, "text": asked_text(last["text"].rstrip(), prompt)}
    return {**turn, "content": content}


def _is_text(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    return part.get("type") == "text" and isinstance(part.get("text"), str)


def _parts(turn: Message) -> list[dict[str, Any]]:
    return [part for part in _listed(turn.get("content")) if isinstance(part, dict)]


def _listed(content: object) -> list[Any]:
    return content if isinstance(content, list) else []
