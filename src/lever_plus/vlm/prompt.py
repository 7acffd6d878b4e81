"""The only module that renders prompts: all stages use it, and so did the shipped VLMs' training.

Style `chat`: demonstrations are turns of the model's own chat template (user: image and question,
assistant: answer). The query is the last user turn, followed by the generation prompt.
Style `flat`: `<image>Question:<Q> Short answer:<A>`, one line per demonstration, as in OpenFlamingo
and the system that this project grew out of; base models without a chat template need it.

Texts are only data: a text that would add, remove or end an image, a turn or a special token is
refused before anything is rendered.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal, Protocol

from lever_plus.data.texts import check_texts, shortened, why_no_prompt, why_no_text
from lever_plus.errors import UserError
from lever_plus.vlm.marks import Marks
from lever_plus.vlm.template import applied, in_time

Message = dict[str, Any]
Style = Literal["chat", "flat"]
FLAT_QUESTION: Final = "{image}Question:{question} Short answer:"
FLAT_END: Final = "\n"
PROCESSORS: Final = 8
"""For how many processors the marks are kept in memory."""


class HasQuestion(Protocol):
    """Anything with a question: a `Query`, an `Example`, or an item of training data."""

    @property
    def question(self) -> str:
        """The question."""
        ...


class HasAnswer(HasQuestion, Protocol):
    """Anything with a question and an answer, which can be shown as a demonstration."""

    @property
    def answer(self) -> str:
        """The answer that a demonstration shows."""
        ...


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How prompts look.

    Attributes:
        style: "chat" or "flat", see the module's docstring.
        instruction: Text after every question, such as "Answer in one word."; may be empty.
    """

    style: Style = "chat"
    instruction: str = ""


CHAT: Final = PromptFormat()


def asked_text(question: str, prompt: PromptFormat = CHAT) -> str:
    """Return the text of a user turn: the question, then the instruction."""
    text = f"{question} {prompt.instruction}".strip()
    return one_line(text) if prompt.style == "flat" else text


def answer_text(answer: str, prompt: PromptFormat = CHAT) -> str:
    """Return an answer as a demonstration shows it."""
    return one_line(answer) if prompt.style == "flat" else answer


def one_line(text: str) -> str:
    """Return a text without line breaks, which would end a demonstration in a flat prompt."""
    return " ".join(text.splitlines())


def messages(
    demonstrations: Sequence[HasAnswer], query: HasQuestion | None, prompt: PromptFormat = CHAT
) -> list[Message]:
    """Return a prompt as chat messages; images are in the order of the examples.

    Raises:
        UserError: A text holds a mark of a known model family, such as an image placeholder.
    """
    check_examples(_all(demonstrations, query), prompt)
    return _turns(demonstrations, query, prompt)


def _turns(
    demonstrations: Sequence[HasAnswer], query: HasQuestion | None, prompt: PromptFormat
) -> list[Message]:
    turns = []
    for example in demonstrations:
        content = [{"type": "text", "text": answer_text(example.answer, prompt)}]
        turns += [_user_turn(example, prompt), {"role": "assistant", "content": content}]
    return turns if query is None else [*turns, _user_turn(query, prompt)]


def _user_turn(example: HasQuestion, prompt: PromptFormat) -> Message:
    text = asked_text(example.question, prompt)
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def _all(
    demonstrations: Sequence[HasAnswer], query: HasQuestion | None
) -> list[HasAnswer | HasQuestion]:
    """Return the demonstrations and the query, without an answer that the query may have."""
    asked = [] if query is None else [_Asked(query)]
    return [*demonstrations, *asked]


class _Asked:
    """A query without the answer that it may have; errors name it like the original."""

    def __init__(self, example: HasQuestion) -> None:
        self.question, self.image = example.question, getattr(example, "image", "")
        self.question_id = getattr(example, "question_id", 0)


def check_examples(
    examples: Iterable[HasQuestion], prompt: PromptFormat = CHAT, processor: Any = None
) -> None:
    """Refuse texts that would add, remove or end an image, a turn or a special token.

    Args:
        examples: Examples, whose answers are checked too, or queries.
        prompt: Style and instruction of the prompts.
        processor: The VLM's processor; None if it is not known: then only the marks of known model
            families are refused.

    Raises:
        UserError: There are such texts; the message names the first of the examples.
    """
    marks = None if processor is None else _marks(processor, prompt.style)
    if prompt.instruction:
        instruction = asked_text("", prompt)
        why = why_no_text(instruction) if marks is None else marks.why(instruction, None)
        if why:
            raise UserError(
                f"the instruction {shortened(prompt.instruction)} cannot be in a prompt: {why}. "
                "Change vlm.prompt.instruction (with a server: vlm.instruction), or remove it "
                "from evaluate.instructions."
            )

    def why_not(question: str, answer: str | None) -> str:
        texts = asked_text(question, prompt), answer and answer_text(answer, prompt)
        return why_no_prompt(*texts) if marks is None else marks.why(*texts)

    check_texts(examples, why_not)


@lru_cache(PROCESSORS)
def _marks(processor: Any, style: Style) -> Marks:
    with in_time():
        return Marks(processor, partial(_rendered, processor, prompt=PromptFormat(style)))


def render(
    processor: Any,
    demonstrations: Sequence[HasAnswer],
    query: HasQuestion | None,
    prompt: PromptFormat = CHAT,
) -> str:
    """Render a prompt as text, with one placeholder per image.

    Args:
        processor: A Hugging Face processor; its chat template decides the format of style "chat".
        demonstrations: What is shown before the query, in prompt order.
        query: What is to be answered; None renders the demonstrations alone.
        prompt: Style and instruction.

    Raises:
        UserError: A text would add, remove or end an image, a turn or a special token; the style is
            "chat" and the processor has no chat template.
    """
    check_examples(_all(demonstrations, query), prompt, processor)
    return _rendered(processor, demonstrations, query, prompt)


def _rendered(
    processor: Any,
    demonstrations: Sequence[HasAnswer],
    query: HasQuestion | None,
    prompt: PromptFormat,
) -> str:
    """Render without checking the texts."""
    if prompt.style == "flat":
        return _flat(processor, demonstrations, query, prompt)
    if getattr(processor, "chat_template", None) is None:
        raise UserError(
            f"{type(processor).__name__} has no chat template: set vlm.prompt.style to flat, or "
            "put a chat_template.jinja into the model's folder."
        )
    turns = _turns(demonstrations, query, prompt)
    return applied(processor, turns, generation=query is not None)


def _flat(
    processor: Any,
    demonstrations: Sequence[HasAnswer],
    query: HasQuestion | None,
    prompt: PromptFormat,
) -> str:
    image = image_placeholder(processor)

    def ask(example: HasQuestion) -> str:
        return FLAT_QUESTION.format(image=image, question=asked_text(example.question, prompt))

    parts = [ask(e) + answer_text(e.answer, prompt) + FLAT_END for e in demonstrations]
    tokenizer = processor.tokenizer
    bos = tokenizer.bos_token_id
    starts = bos is not None and list(tokenizer("x")["input_ids"])[:1] == [bos]
    last = [] if query is None else [ask(query)]
    return "".join([tokenizer.bos_token if starts else "", *parts, *last])


def image_placeholder(processor: Any) -> str:
    """Return the placeholder of an image: as the chat template writes it, or its token."""
    if getattr(processor, "chat_template", None) is None:
        token = getattr(processor, "boi_token", None) or processor.image_token
        return str(getattr(token, "content", token))
    texts = [{"type": "text", "text": "\u2402"}, {"type": "text", "text": "\u2403"}]
    turn = {"role": "user", "content": [texts[0], {"type": "image"}, texts[1]]}
    text = applied(processor, [turn], generation=False)
    return text.partition("\u2402")[2].partition("\u2403")[0].strip()


def extract_answer(generation: str, style: Style) -> str:
    """Return the answer in a raw generation, the same way for every method and shot.

    A flat prompt has no end-of-turn token: the answer ends with its line, or where the model begins
    to write the next question.
    """
    if style == "flat":
        generation = generation.strip().split("\n")[0].split("Question:")[0]
    return generation.strip()


class Sample:
    """Fixed texts over which the prompt hash is computed, and with which prompts are tried."""

    question = "What is shown? Answer in one word."
    answer = "sample"


class LongSample:
    """A question of two lines."""

    question = "What is shown?\nAnswer in one word."


def prompt_hash(processor: Any, prompt: PromptFormat = CHAT) -> str:
    """Return a sha256 that changes exactly when the rendering of prompts changes."""
    rendered = [render(processor, [Sample()] * shots, Sample(), prompt) for shots in (0, 1, 2)]
    if prompt.style == "flat":
        rendered.append(render(processor, [], LongSample(), prompt))
    return hashlib.sha256("\0".join(rendered).encode()).hexdigest()


def message_hash(prompt: PromptFormat) -> str:
    """Return the hash of the messages, for a server, which renders them with its own template."""
    rendered = repr([messages([Sample()] * shots, Sample(), prompt) for shots in (0, 1, 2)])
    return hashlib.sha256(rendered.encode()).hexdigest()
