"""The one module that renders prompts: SFT data, RL data, evaluation and pretraining all use it.

Demonstrations are real turns of the model's own chat template (user: image and question,
assistant: answer); the query is the last user turn, followed by the generation prompt.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

Message = dict[str, Any]


class HasQuestion(Protocol):
    """Anything with a question and an answer: an `Example`, or a training item in memory."""

    @property
    def question(self) -> str:
        """The question."""
        ...

    @property
    def answer(self) -> str:
        """The answer that a demonstration shows."""
        ...


class ChatTemplate(Protocol):
    """What this module needs of a Hugging Face processor."""

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any:
        """Render a conversation as text."""
        ...


def user_turn(example: HasQuestion) -> Message:
    """Return the user's turn: the image, then the question."""
    content = [{"type": "image"}, {"type": "text", "text": example.question}]
    return {"role": "user", "content": content}


def answer_turn(example: HasQuestion) -> Message:
    """Return the assistant's turn: the answer."""
    return {"role": "assistant", "content": [{"type": "text", "text": example.answer}]}


def demonstration(example: HasQuestion) -> list[Message]:
    """Return the two turns of one demonstration."""
    return [user_turn(example), answer_turn(example)]


def render(
    processor: ChatTemplate, demonstrations: Sequence[HasQuestion], query: HasQuestion | None
) -> str:
    """Render a prompt as text, image placeholders unexpanded.

    Args:
        processor: Its chat template decides the format.
        demonstrations: In the order in which they stand in the prompt.
        query: The example to be answered; None renders the demonstrations alone.
    """
    turns = [turn for example in demonstrations for turn in demonstration(example)]
    if query is not None:
        turns.append(user_turn(query))
    text: str = processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=query is not None
    )
    return text


class _Sample:
    """Fixed text that the prompt hash is computed over."""

    question = "What is shown? Answer in one word."
    answer = "sample"


def prompt_hash(processor: ChatTemplate) -> str:
    """Return a sha256 that changes exactly when the rendering of prompts changes."""
    rendered = [render(processor, [_Sample()] * shots, _Sample()) for shots in (0, 1, 2)]
    return hashlib.sha256("\0".join(rendered).encode()).hexdigest()
