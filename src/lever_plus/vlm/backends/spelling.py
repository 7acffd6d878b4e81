"""How a server spells an answer: its tokens after a prompt, and the text of the first n of them.

A server takes texts, not tokens. So an answer's third token can only be asked for after a text that
is tokenized into the first two. Whether there are such texts is checked with `/tokenize` before an
answer is scored in this way. The tokens are those of the answer as the start of the assistant's
turn, the same as in an echo.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from lever_plus.vlm.backends.chat import CONTINUED, Chat
from lever_plus.vlm.backends.replies import bare
from lever_plus.vlm.prompt import Message

ASKED: Final = [{"role": "user", "content": [{"type": "text", "text": "What is shown?"}]}]
"""Any prompt will do: all of them end in the same way before an answer."""
MOST_TOKENS: Final = 32
"""For longer answers an echo costs less than one request per token."""


class Spelling(NamedTuple):
    """An answer and its tokens; `begun[n]` is the text of the first n of them."""

    answer: str
    ids: tuple[int, ...]
    begun: tuple[str, ...]


class Speller:
    """Finds spellings of answers, and remembers them."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self._known: dict[str, Spelling | None] = {}

    async def of(self, chat: Chat, answer: str) -> Spelling | None:
        """Return the spelling of an answer.

        It is None if the server does not say, if the prompt with the answer does not begin with the
        tokens of the prompt alone, or if no text gives exactly the first tokens.
        """
        if answer not in self._known:
            self._known[answer] = await _spelled(chat, answer)
        return self._known[answer]


async def _spelled(chat: Chat, answer: str) -> Spelling | None:
    prompt = await chat.tokens(ASKED, {})
    if prompt is None:
        return None
    ids = await _after(chat, prompt, answer)
    if not ids or len(ids) > MOST_TOKENS:
        return None
    begun = [""]
    for count in range(1, len(ids)):
        text = await chat.text(ids[:count])
        for start in _starts(answer, text or ""):
            if await _after(chat, prompt, start) == ids[:count]:
                begun.append(start)
                break
        else:
            return None
    return Spelling(answer, tuple(ids), tuple(begun))


async def _after(chat: Chat, prompt: list[int], answer: str) -> list[int]:
    """Return the tokens of an answer after a prompt; none if it changes the prompt's tokens."""
    whole = await chat.tokens(begun_with(ASKED, answer), CONTINUED) or []
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else []


def begun_with(turns: list[Message], text: str) -> list[Message]:
    """Return a chat whose assistant has begun its turn with a text."""
    return [*turns, {"role": "assistant", "content": text}]


def _starts(answer: str, text: str) -> Iterator[str]:
    """Yield the beginnings of an answer that equal a text, except for white space."""
    wanted = bare(text)
    for end in range(1, len(answer)):
        if bare(answer[:end]) == wanted:
            yield answer[:end]
