"""Which texts may be part of a prompt: none that holds a mark of a VLM's tokenizer.

A mark is a text such as `<image>` or `<|im_end|>`. In a question, an answer or an instruction, it
would become an image or end the turn. Marks of all known families are refused here whatever the VLM
is, so that data fit every VLM; `vlm.marks` adds those of the processor in use.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from lever_plus.errors import UserError

SHOWN_OFFENDERS: Final = 5
SHOWN_CHARACTERS: Final = 80
LONGEST: Final = 10_000
"""Characters: a longer text is not a question or an answer about an image; maybe it is a file."""
UNSEEN: Final = re.compile(r"[\u034f\u115f\u1160\u180b-\u180f\u2800\ufe00-\ufe0f]")
"""Invisible characters, besides those of Unicode category Cf."""
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
HALF: Final = re.compile(r"[\ud800-\udfff]")
_NAMES: Final = (
    *("s", "pad", "unk", "bos", "eos", "cls", "sep", "mask", "sys", "eot", "eod", "eom", "eoh"),
    *("image", "images", "img", "im", "video", "audio", "speech", "picture", "placeholder"),
    *("user", "assistant", "system", "human", "bot", "gpt", "ref", "box", "quad", "point", "poly"),
    *("global-img", "grounding", "phrase", "object", "think", "tool_call", "tool_response"),
    *("loc", "seg", "unused", "reserved", "obj", "boi", "eoi", "patch", "sop", "eop", "tool"),
    *("eoa", "imagehere", "imagecontent", "image placeholder", "image-placeholder", "slice"),
    *("ctrl", "dummy", "answer", "observation"),
)
_BRACKETED: Final = (
    *("img", "image", "inst", "pad", "unk", "bos", "eos", "cls", "sep", "mask", "gmask", "smask"),
    *("sop", "eop", "prefix", "suffix", "middle", "audio", "video", "think", "args", "call_id"),
    *("system_prompt", "available_tools", "tool_calls", "tool_results", "tool_content", "model"),
    *("begin_audio", "transcribe", "modelsettings", "model_settings", "sys"),
)
KNOWN: Final = re.compile(
    "|".join(
        (
            r"<\|[^<>\n]{0,60}\|?>",  # <|im_end|>, <|image_pad|>, <|eot_id|>, <|image_1|>
            r"</?[\w-]{0,40}[_\u2581][\w\u2581-]{0,40}/?>",  # <end_of_utterance>, <row_1_col_2>
            r"\[\|[^\[\]\n]{0,60}\|\]",  # [|Human|]
            r"\[unused(?:_token)?_?\d+\]",
            r"<0x[0-9a-f]{2}>",  # a byte, in tokenizers that fall back to bytes
            rf"<{{1,2}}/?(?:{'|'.join(_NAMES)})\d*/?>{{1,2}}",
            rf"\[/?(?:{'|'.join(_BRACKETED)})(?:_(?:break|end|start))?\]",
            "user:|assistant:",
        )
    )
)
"""Marks of the tokenizers, chat templates and processors of known families, in folded text."""


class Asks(Protocol):
    """Anything with a question: an example or a query."""

    @property
    def question(self) -> str:
        """The question."""
        ...


def folded(text: str) -> str:
    """Return a text as the most lenient tokenizer reads it: without case, width, unseen signs."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
        text = UNSEEN.sub("", text)
    return text.casefold()


def is_plain(text: str) -> bool:
    """Whether a text has visible characters, and no control characters but tabs and line breaks."""
    return bool(folded(text).strip()) and not (HALF.search(text) or CONTROL.search(text))


def why_no_text(text: str) -> str:
    """Return why a text cannot be part of any prompt, or "" if it can.

    Args:
        text: A question, an answer, an instruction.

    Returns:
        The end of a sentence, such as "holds '<image>', which ...".
    """
    if len(text) > LONGEST:
        return f"has {len(text):,} characters, more than the {LONGEST:,} that it may have"
    if found := HALF.search(text) or CONTROL.search(text):
        kind = "half a character" if HALF.search(text) else "the control character"
        return f"holds {kind}, U+{ord(found[0]):04X}"
    plain = folded(text)
    if not plain.strip():
        return "has no text"
    if found := KNOWN.search(plain):
        return is_a_mark(found[0])
    return ""


def is_a_mark(mark: str) -> str:
    """Return what is wrong with a text that holds a mark, as the end of a sentence."""
    return f"holds {mark!r}, which VLMs read as a special token, not as text"


def why_no_prompt(question: str, answer: str | None) -> str:
    """Return why a question and its answer, if that is shown, cannot be in a prompt, or ""."""
    if why := why_no_text(question):
        return f"its question {shortened(question)} {why}"
    if answer is not None and (why := why_no_text(answer)):
        return f"its answer {shortened(answer)} {why}"
    return ""


def shortened(text: str) -> str:
    """Return a text as errors quote it: with quotes, and cut if it is long."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
    return ascii(cut) if HALF.search(cut) else repr(cut)


def named(example: Asks) -> str:
    """Return how an error names an example: by its id, or by its question and image."""
    number, image = getattr(example, "question_id", 0), getattr(example, "image", "")
    if number:
        return f"question {number}"
    return f"the question {shortened(example.question)}" + (f" ({image})" if image else "")


def check_texts(
    examples: Iterable[Asks], why: Callable[[str, str | None], str] = why_no_prompt
) -> None:
    """Refuse examples whose texts cannot be part of a prompt.

    Args:
        examples: Examples, whose answers are checked too, or queries.
        why: Returns why a question and an answer cannot be in a prompt, or "" if they can.

    Raises:
        UserError: Some cannot; the first are named.
    """
    bad = [(e, found) for e in examples if (found := why(e.question, getattr(e, "answer", None)))]
    if not bad:
        return
    more = ", ".join(named(example) for example, _ in bad[1:SHOWN_OFFENDERS])
    others = f" ({len(bad)} such examples, also {more})" if more else ""
    raise UserError(
        f"{named(bad[0][0])} cannot be in a prompt: {bad[0][1]}{others}. Write it in other words, "
        "or leave it out."
    )
