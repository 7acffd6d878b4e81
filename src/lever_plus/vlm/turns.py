"""Where an answer begins: the token ids of a query's turn, and those of its answer.

All ids come from the processor's own tokenizer. The ids of an answer are the end of the ids of its
turn, without end-of-turn marks. If the tokenizer merges the answer with the text before it, they
are the ids of the answer alone, because a model continues from the prompt's own tokens.
"""

from typing import Any, NamedTuple

from lever_plus.errors import UserError
from lever_plus.vlm.prompt import HasAnswer, HasQuestion, PromptFormat, answer_text, render


class Turn(NamedTuple):
    """One example as a query, and with its answer; each image is one placeholder.

    query: token ids of the example as a query without demonstrations; whole: token ids of the
    example as a demonstration; text: the text of `whole`; answer: token ids of the answer; follows:
    whether `whole` is `query`, then `answer`, then end-of-turn marks.
    """

    query: list[int]
    whole: list[int]
    text: str
    answer: list[int]
    follows: bool


def asked_turn(processor: Any, query: HasQuestion, prompt: PromptFormat) -> Turn:
    """Return the turn of a query whose answer is not known."""
    text = render(processor, [], query, prompt)
    ids = text_ids(processor, text)
    return Turn(ids, ids, text, [], follows=True)


def turn(processor: Any, example: HasAnswer, prompt: PromptFormat) -> Turn:
    """Return the turn of an example with its answer.

    Raises:
        UserError: No token is left for the answer.
    """
    text = render(processor, [example], None, prompt)
    query = text_ids(processor, render(processor, [], example, prompt))
    whole = text_ids(processor, text)
    follows = whole[: len(query)] == query
    answer = without_end(
        processor,
        whole[len(query) :]
        if follows
        else text_ids(processor, answer_text(example.answer, prompt)),
    )
    if not answer:
        raise UserError(
            f"the answer {example.answer!r} has no token of its own, so its likelihood is not "
            "defined: correct the answer, or use another tokenizer."
        )
    return Turn(query, whole, text, answer, follows)


def without_end(processor: Any, ids: list[int]) -> list[int]:
    """Return ids without the special tokens and the white space at their end."""
    tokenizer, kept = processor.tokenizer, list(ids)
    while kept and kept[-1] != tokenizer.unk_token_id:
        if tokenizer.decode(kept[-1:], skip_special_tokens=True).strip():
            break
        kept.pop()
    return kept


def text_ids(processor: Any, text: str) -> list[int]:
    """Return the token ids of a text; no special tokens are added."""
    return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
