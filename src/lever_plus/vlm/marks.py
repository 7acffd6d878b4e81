"""Marks of a processor: texts that it reads as an image, the end of a turn or a special token.

A prompt must have exactly the marks that its template writes. A question or answer that would add
or remove a mark, or end a turn, is found by comparing its prompt with that of a neutral text: first
the text, then the tokens and, if it has characters that could begin a mark, also what the processor
makes of the prompt with images.
"""

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from lever_plus.data.texts import folded, is_a_mark, shortened, why_no_prompt
from lever_plus.vlm.template import broken, check_answers_at_once

PLAIN: Final = re.compile(r"[\w\s.,;:!?'\"()/&%$#@+=*-]*")
"""Texts of these characters alone can only hold marks that a search for the mark itself finds."""
BRACKETS: Final = re.compile(r"[<>\[\]{}|]")
KEPT: Final = 100_000
"""How many results of checks are kept in memory."""
SIDE: Final = 64
"""Width and height of the image in prompts that are tried, in pixels."""


class Shown(NamedTuple):
    """The texts of an example that a prompt shows."""

    question: str
    answer: str


NEUTRAL: Final = Shown("What is shown?", "sample")
ASKED: Final = Shown("Who is there?", "nobody")
SHOWN: Final = re.compile(".*".join(map(re.escape, (*NEUTRAL, ASKED.question))), re.DOTALL)
"""The texts that a prompt with `NEUTRAL` as demonstration and `ASKED` as query must show."""
Draw = Callable[[Sequence[Shown], Shown], str]


class Marks:
    """The marks of one processor and one style of prompts."""

    def __init__(self, processor: Any, draw: Draw) -> None:
        """Collect the marks, and try a prompt of neutral texts.

        Args:
            processor: A Hugging Face processor.
            draw: Renders demonstrations and a query as text, whatever they hold.

        Raises:
            UserError: The processor makes no prompt that shows every image, question and answer, or
                its prompts let answers begin with a thought.
        """
        self._processor, self._draw = processor, draw
        added = getattr(processor.tokenizer, "added_tokens_decoder", {})
        special = {i: str(t.content) for i, t in added.items() if t.special or _mark(t.content)}
        texts = {*special.values(), *_named(processor)}
        tokenizer = processor.tokenizer
        named = tokenizer.convert_tokens_to_ids(sorted(texts))
        self._ids = {*special, *tokenizer.all_special_ids, *named}
        # The token for unknown words is not a mark, unless it also begins or ends texts.
        if tokenizer.unk_token_id not in {tokenizer.bos_token_id, tokenizer.eos_token_id}:
            self._ids.discard(tokenizer.unk_token_id)
        self._plain = {text for text in texts if text and not _mark(text)}
        self._bracketed = {folded(text) for text in texts if _mark(text)}
        drawn = draw([NEUTRAL], NEUTRAL)
        self._headers, self._neutral = _headers(drawn), self._marks(drawn)
        if not SHOWN.search(draw([NEUTRAL], ASKED)):
            raise broken(processor, "does not show every question and answer, in their order")
        if draw([NEUTRAL], NEUTRAL) != drawn:
            raise broken(processor, "makes another prompt each time")
        check_answers_at_once(processor, drawn.rpartition(NEUTRAL.question)[2])
        try:
            self._expected = self._processed(drawn)
        except Exception as error:  # whatever the processor raises
            lines = str(error).splitlines() or [type(error).__name__]
            raise broken(processor, f"makes prompts that cannot be read ({lines[0]})") from error
        self.why = lru_cache(KEPT)(self._why)

    def _why(self, question: str, answer: str | None) -> str:
        """Return why a question (and its answer) cannot be in a prompt, or ""."""
        if why := why_no_prompt(question, answer):
            return why
        for kind, text in (("question", question), ("answer", answer or NEUTRAL.answer)):
            if why := self._held(text):
                return f"its {kind} {shortened(text)} {why}"
        shown = Shown(question, answer or NEUTRAL.answer)
        if all(_is_plain(text) for text in shown):
            return ""
        both = f"with the answer {shortened(answer)} " if answer else ""
        why = self._changed(shown)
        return f"its question {shortened(question)} {both}{why}" if why else ""

    def _held(self, text: str) -> str:
        """Return the complaint about a mark that is part of the text itself, or ""."""
        if found := next((mark for mark in self._plain if mark in text), ""):
            return is_a_mark(found)
        read = folded(text)
        if self._headers and (begun := self._headers.search(read)):
            return f"holds {begun[0]!r}, which begins a turn in this VLM's prompts"
        marks = self._bracketed if BRACKETS.search(read) else ()
        found = next((mark for mark in marks if mark in read), "")
        return is_a_mark(found) if found else ""

    def _changed(self, shown: Shown) -> str:
        """Return how a prompt with these texts differs from a neutral one in its tokens, or ""."""
        text = self._draw([shown], shown)
        marks = (
            "changes the special tokens of the prompt: this VLM reads a part of it as such a token"
        )
        if self._marks(text) != self._neutral:
            return marks
        if any(not _ids(self._processor, part) for part in shown):
            return "has a text that this VLM's tokenizer drops altogether"
        if not any(BRACKETS.search(part) for part in shown):
            return ""
        if any(part.strip() not in text for part in shown):
            return "is not shown as it is: this VLM's chat template changes it"
        try:
            same = self._processed(text) == self._expected
        except (ValueError, TypeError, LookupError, RuntimeError, StopIteration):
            same = False
        return "" if same else marks

    def _marks(self, text: str) -> list[int]:
        return [i for i in _ids(self._processor, text) if i in self._ids]

    def _processed(self, text: str) -> list[int]:
        """Return the marks of a prompt with two images, after the processor has expanded them."""
        from PIL import Image

        from lever_plus.hub.processing import process

        image = Image.new("RGB", (SIDE, SIDE), "white")
        ids = process(self._processor, [text], [[image, image]], "left")["input_ids"][0].tolist()
        return [i for i in ids if i in self._ids]


def _ids(processor: Any, text: str) -> list[int]:
    return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _is_plain(text: str) -> bool:
    return PLAIN.fullmatch(text) is not None and re.search(r"[^\W_]", text) is not None


def _mark(text: str) -> bool:
    """Return whether a text looks like a mark: in brackets, or with bars."""
    return re.fullmatch(r"\s*[<\[{|].*[>\]}|]\s*", text, re.DOTALL) is not None


def _named(processor: Any) -> Collection[str]:
    """Return texts that a processor replaces or counts, such as its image token."""
    values = [v for k, v in vars(processor).items() if k.endswith(("_token", "_tag", "_thumbnail"))]
    return {str(getattr(value, "content", value)) for value in values if value is not None}


def _headers(drawn: str) -> re.Pattern[str] | None:
    """Return a pattern for the words that begin turns, such as "USER:" or "### Human:".

    Args:
        drawn: A rendered prompt of neutral texts.
    """
    for text in NEUTRAL:
        drawn = drawn.replace(text, "\n")
    parts = {folded(part.strip(" #*-=~>")) for part in re.split(r"[.!?\n<>\[\]|]", drawn)}
    words = [re.escape(part) for part in sorted(parts) if re.fullmatch(r"\w[\w ]*:", part)]
    return re.compile("|".join(words)) if words else None
