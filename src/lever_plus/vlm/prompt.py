"""The one module that renders prompts: SFT data, RL data, evaluation and pretraining all use it.

Style `chat`: demonstrations are real turns of the model's own chat template (user: image and
question, assistant: answer); the query is the last user turn, followed by the generation prompt.
Style `flat`: the template of OpenFlamingo and the system this project grew out of,
`<image>Question:<Q> Short answer:<A>`, a line each; base models without a chat template need it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from lever_plus.errors import UserError

Message = dict[str, Any]
Style = Literal["chat", "flat"]
FLAT_QUESTION: Final = "{image}Question:{question} Short answer:"
FLAT_END: Final = "\n"


class HasQuestion(Protocol):
    """Anything with a question: a `Query`, an `Example`, a training item in memory."""

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
        style: "chat" or "flat", see the module.
        instruction: Text after every question, such as "Answer in one word."; may be empty.
    """

    style: Style = "chat"
    instruction: str = ""


CHAT: Final = PromptFormat()


def user_turn(example: HasQuestion, prompt: PromptFormat = CHAT) -> Message:
    """Return the user's turn: the image, then the question."""
    text = f"{example.question} {prompt.instruction}".strip()
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def messages(
    demonstrations: Sequence[HasAnswer], query: HasQuestion | None, prompt: PromptFormat = CHAT
) -> list[Message]:
    """Return a prompt as chat messages; images stand in the order of the examples."""
    turns = []
    for example in demonstrations:
        turns.append(user_turn(example, prompt))
        content = [{"type": "text", "text": example.answer}]
        turns.append({"role": "assistant", "content": content})
    return turns if query is None else [*turns, user_turn(query, prompt)]


def render(
    processor: Any,
    demonstrations: Sequence[HasAnswer],
    query: HasQuestion | None,
    prompt: PromptFormat = CHAT,
) -> str:
    """Render a prompt as text, image placeholders unexpanded.

    Args:
        processor: A Hugging Face processor; its chat template decides the format of style "chat".
        demonstrations: In the order in which they stand in the prompt.
        query: What is to be answered; None renders the demonstrations alone.
        prompt: Style and instruction.

    Raises:
        UserError: The style is "chat" and the processor has no chat template.
    """
    if prompt.style == "flat":
        return _flat(processor, demonstrations, query, prompt)
    if getattr(processor, "chat_template", None) is None:
        raise UserError(
            f"{type(processor).__name__} has no chat template: set vlm.prompt.style to flat, or "
            "put a chat_template.jinja into the model's folder."
        )
    text: str = processor.apply_chat_template(
        messages(demonstrations, query, prompt),
        tokenize=False,
        add_generation_prompt=query is not None,
    )
    return text


def _flat(
    processor: Any,
    demonstrations: Sequence[HasAnswer],
    query: HasQuestion | None,
    prompt: PromptFormat,
) -> str:
    image = image_placeholder(processor)

    def ask(example: HasQuestion) -> str:
        question = f"{example.question} {prompt.instruction}".strip()
        return FLAT_QUESTION.format(image=image, question=question)

    parts = [ask(example) + example.answer + FLAT_END for example in demonstrations]
    tokenizer = processor.tokenizer
    bos = tokenizer.bos_token_id
    starts = bos is not None and list(tokenizer("x")["input_ids"])[:1] == [bos]
    last = [] if query is None else [ask(query)]
    return "".join([tokenizer.bos_token if starts else "", *parts, *last])


def image_placeholder(processor: Any) -> str:
    """Return the text that stands for an image: what the chat template writes, else its token."""
    if getattr(processor, "chat_template", None) is None:
        token = getattr(processor, "boi_token", None) or processor.image_token
        return str(getattr(token, "content", token))
    texts = [{"type": "text", "text": "\u2402"}, {"type": "text", "text": "\u2403"}]
    turn = {"role": "user", "content": [texts[0], {"type": "image"}, texts[1]]}
    text: str = processor.apply_chat_template([turn], tokenize=False)
    return text.partition("\u2402")[2].partition("\u2403")[0].strip()


def extract_answer(generation: str, style: Style) -> str:
    """Return the answer in a raw generation, the same way for every method and shot.

    A flat prompt has no end-of-turn token: the answer ends with its line, or where the model goes
    on to ask itself the next question.
    """
    if style == "flat":
        generation = generation.strip().split("\n")[0].split("Question:")[0]
    return generation.strip()


class Sample:
    """Fixed text that the prompt hash is computed over, and that prompts are tried with."""

    question = "What is shown? Answer in one word."
    answer = "sample"


def prompt_hash(processor: Any, prompt: PromptFormat = CHAT) -> str:
    """Return a sha256 that changes exactly when the rendering of prompts changes."""
    rendered = [render(processor, [Sample()] * shots, Sample(), prompt) for shots in (0, 1, 2)]
    return hashlib.sha256("\0".join(rendered).encode()).hexdigest()


def message_hash(prompt: PromptFormat) -> str:
    """Return the same for a server, which renders messages with a template of its own."""
    rendered = repr([messages([Sample()] * shots, Sample(), prompt) for shots in (0, 1, 2)])
    return hashlib.sha256(rendered.encode()).hexdigest()
