"""Checks of a server's reply, before its answer or likelihoods are used.

A reply of status 200 may have no answer: the model spent its tokens on thoughts or called a tool,
the server filtered the text, or it runs another model. Only a text of the model is an answer.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.request import HIGHEST

LONGEST_TOKEN: Final = 256
"""Largest number of characters in a token; the longest in today's vocabularies have 128."""
ENDS: Final = frozenset(
    {"stop", "length", "eos", "eos_token", "stop_sequence", "end_turn", "max_tokens"}
)
"""Values of finish_reason with which an answer is the model's own."""
CUT: Final = frozenset({"length", "max_tokens"})
"""Those of them that mean that the largest number of tokens was reached."""
_THINKING: Final = (
    "start the server with the model's thinking turned off, or raise vlm.max_new_tokens so that an "
    "answer fits after its thoughts"
)
_THOUGHTS: Final = re.compile(
    r"</?(?:\w+:)?(?:think|thinking|thought|thoughts|reasoning)>|◁/?think▷|\[/?THINK\]"
    r"|<\|channel\|>|<\|(?:begin|end)_of_thought\|>",
    re.IGNORECASE,
)
"""The marks that models put around thoughts; templates often write the first one themselves."""
_THOUGHT_OF: Final = (
    *("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks"),
    "thoughts",
)
_TURN_END: Final = re.compile(
    r"(?:<\|(?:im_end|end|eot_id|endoftext|end_of_text|eom_id|eos|return)\|>|</s>|<eos>"
    r"|<end_of_turn>|<end_of_utterance>|<pad>|<\uff5cend\u2581of\u2581sentence\uff5c>)\s*\Z"
)
_MORE_TOKENS: Final = 1
"""How many tokens more than asked for a server may report, as some count the end of the turn."""
Echo = tuple[str, float, str | None]
"""A token of a prompt: id, log-probability, and its text if the server gives it."""


def answer_of(reply: dict[str, Any], model: str, max_new_tokens: int, where: str) -> str:
    """Return the text in a reply of chat/completions.

    Args:
        reply: The reply.
        model: The model that was asked.
        max_new_tokens: The largest number of tokens that was asked for.
        where: The server and the question, with which errors begin.

    Raises:
        UserError: The reply has no text, was cut off before it, or is another model's.
    """
    check_model(reply, model, where)
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = len(choices) if isinstance(choices, list) else "no list of"
        raise UserError(f"{where}: {count} choices instead of one: see the server's log.")
    choice = choices[0]
    if choice.get("index") not in (None, 0) or isinstance(choice.get("index"), bool):
        raise UserError(f"{where}: its choice has the number {_shown(choice['index'])}, not 0.")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UserError(f"{where}: its choice has no message: see the server's log.")
    if message.get("role") not in (None, "assistant"):
        raise UserError(
            f"{where}: its message is of {_shown(message['role'])}, not of the assistant."
        )
    text, end = message.get("content"), choice.get("finish_reason")
    if end is not None and not (isinstance(end, str) and end in ENDS):
        raise UserError(
            f"{where}: the server ended it for the reason {_shown(end)}, so it is not the model's "
            "own answer: see the server's log, and turn off filters and tools."
        )
    _check_message(message, end, where)
    _check_choice(choice, message, where)
    if not isinstance(text, str):
        raise UserError(
            f"{where}: its content is {_shown(text)}, not a text: see the server's log."
        )
    if len(text) > LONGEST_TOKEN * max_new_tokens:
        raise UserError(
            f"{where}: {len(text):,} characters, more than {max_new_tokens} tokens can have "
            "(vlm.max_new_tokens): the server ignores max_tokens; use one that does not."
        )
    if mark := _THOUGHTS.search(text):
        raise UserError(f"{where}: it contains the model's thoughts ({mark[0]}): {_THINKING}.")
    if mark := _TURN_END.search(text):
        raise UserError(
            f"{where}: it ends with the token {mark[0].strip()}, which is not part of an answer: "
            "set the server to leave special tokens out (skip_special_tokens)."
        )
    _check_usage(reply.get("usage"), text, max_new_tokens, where)
    return text


def _check_choice(choice: dict[str, Any], message: dict[str, Any], where: str) -> None:
    """Refuse an error that came after the reply had begun."""
    for each in (choice, message):
        if each.get("error"):
            raise UserError(
                f"{where}: the server ended its answer early ({_shown(each['error'])}): see its "
                "log; the answers so far are stored."
            )


def _check_usage(usage: object, text: str, max_new_tokens: int, where: str) -> None:
    """Refuse an answer with more tokens than asked for, or one of thoughts alone."""
    if not isinstance(usage, dict):
        return
    count = usage.get("completion_tokens")
    if isinstance(count, int) and count > max_new_tokens + _MORE_TOKENS:
        raise UserError(
            f"{where}: the server counts {_shown(count)} tokens, more than vlm.max_new_tokens "
            f"({max_new_tokens}): it ignores max_tokens; use a server that does not."
        )
    details = usage.get("completion_tokens_details")
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if isinstance(thought, int) and thought > 0 and not text.strip():
        raise UserError(f"{where}: all of its tokens went into thoughts: {_THINKING}.")


def _check_message(message: dict[str, Any], end: object, where: str) -> None:
    """Refuse a refusal, a tool call or nothing in place of an answer."""
    if message.get("refusal"):
        said = _shown(message["refusal"])
        raise UserError(f"{where}: the server refuses to answer ({said}): ask another model.")
    if message.get("tool_calls") or message.get("function_call"):
        raise UserError(
            f"{where}: the model calls a tool instead of answering: start the server without tools."
        )
    if message.get("content") in (None, ""):
        if end in CUT or any(message.get(name) for name in _THOUGHT_OF):
            raise UserError(
                f"{where}: no answer within vlm.max_new_tokens; the model's tokens went into "
                f"thoughts or special tokens: {_THINKING}."
            )
        if end is None or message.get("content") is None:
            raise UserError(f"{where}: it has no answer and gives no reason: see the server's log.")


def check_model(reply: dict[str, Any], model: str, where: str) -> None:
    """Refuse the reply of another model than the one that was asked.

    A dated version (gpt-4o-2024-08-06 for gpt-4o) and another owner before the slash are accepted.
    """
    name = reply.get("model")
    if name is None:
        return
    if isinstance(name, str):
        asked, came = (each.casefold().rpartition("/")[2] for each in (model, name))
        if came == asked or re.fullmatch(re.escape(asked) + r"[-@:]\d[\d-]*", came):
            return
    raise UserError(
        f"{where}: it comes from the model {_shown(name)}, not from {model}: set vlm.model to it "
        "if it is the right one."
    )


def echoed(reply: dict[str, Any], model: str, where: str) -> list[Echo]:
    """Return the tokens of a prompt that a server has echoed.

    The first has no log-probability: it is ("", 0.0, None). Arguments and errors are those of
    `answer_of`.
    """
    check_model(reply, model, where)
    entries = reply.get("prompt_logprobs")
    if not entries:
        raise UserError(
            f"{where}: the server does not echo the log-probabilities of its prompt "
            "(prompt_logprobs): InfoScore needs them. Use a server that does, such as vLLM, or "
            "vlm.kind: huggingface."
        )
    if not isinstance(entries, list):
        raise UserError(f"{where}: prompt_logprobs is not a list: see the server's log.")
    return [_echo(entry, number, where) for number, entry in enumerate(entries)]


def _echo(entry: Any, number: int, where: str) -> Echo:
    if entry is None and number == 0:
        return "", 0.0, None
    place = f"{where}: prompt_logprobs of token {number}"
    if not isinstance(entry, dict) or not entry:
        raise UserError(f"{place} is {_shown(entry)}, not an object: see the server's log.")
    # The prompt's own token is first; the likeliest tokens follow.
    token, found = next(iter(entry.items()))
    if not (token.isascii() and token.isdecimal()) or not isinstance(found, dict):
        raise UserError(f"{place} has no token id: see the server's log.")
    value = found.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or not _possible(value):
        raise UserError(f"{place}: {_shown(value)} is not a log-probability: see the server's log.")
    text = found.get("decoded_token")
    return token, min(0.0, float(value)), text if isinstance(text, str) else None


def _possible(value: float) -> bool:
    try:
        return math.isfinite(value) and value <= HIGHEST
    except OverflowError:  # an integer too large for a float
        return False


def following(prompt: list[Echo], whole: list[Echo], answer: str, where: str) -> list[float]:
    """Return the log-probability of each token that `whole` has after `prompt`.

    Args:
        prompt: The prompt without the answer.
        whole: The prompt with the answer as the start of the assistant's turn.
        answer: The answer.
        where: The server and the question, with which errors begin.

    Raises:
        UserError: `whole` is not `prompt` followed by exactly the answer.
    """
    ids, known = [each[0] for each in whole], len(prompt)
    scored = whole[known:]
    if ids[:known] != [each[0] for each in prompt] or not scored:
        raise UserError(
            f"{where}: the server does not continue the prompt's own tokens with the answer "
            f"{answer!r}, so its likelihood is not defined: use a local model for sft_data."
        )
    texts = [text for *_, text in scored if text is not None]
    said = "".join(texts)
    if len(texts) == len(scored) and "\ufffd" not in said and bare(said) != bare(answer):
        raise UserError(
            f"{where}: after the prompt come the tokens {quoted(said)!r} instead of the answer "
            f"{answer!r}: the server ignores continue_final_message; use one that does not, such "
            "as vLLM, or a local model for sft_data."
        )
    return [value for _, value, _ in scored]


def bare(text: str) -> str:
    """Return a text without white space and the marks that tokenizers write for it."""
    return re.sub(r"[\s▁ĠĊ]", "", text)


def next_tokens(
    reply: dict[str, Any], wanted: Sequence[int], model: str, where: str
) -> dict[int, float]:
    """Return {token id: log-probability as the next token} from a reply of one token.

    Args:
        reply: The reply, with tokens named like "token_id:7".
        wanted: Ids of the tokens that were asked for.
        model: The model that was asked.
        where: The server and the question, with which errors begin.

    Raises:
        UserError: A token is missing, or has no log-probability.
    """
    check_model(reply, model, where)
    entries: list[Any] = []
    try:
        (first,) = reply["choices"][0]["logprobs"]["content"]
        entries = [first, *first["top_logprobs"]]
        given = {str(each["token"]): each["logprob"] for each in entries}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{where}: it has no log-probabilities of the next token.") from error
    found = {}
    for token in wanted:
        value = given.get(f"token_id:{token}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _possible(value):
            raise UserError(
                f"{where}: {_shown(value)} is not a log-probability of token {token}: see the "
                "server's log."
            )
        found[token] = min(0.0, float(value))
    return found


def prompt_length(reply: dict[str, Any]) -> int | None:
    """Return how many tokens the prompt of a reply had; None if it does not say."""
    usage = reply.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int else None


def model_names(reply: dict[str, Any]) -> list[str]:
    """Return the names of a server's models, from its reply to /models."""
    data = reply.get("data")
    rows = data if isinstance(data, list) else []
    names = [row.get("id") for row in rows if isinstance(row, dict)]
    return [name for name in names if isinstance(name, str) and name]


def _shown(value: object) -> str:
    return quoted(repr(value), 80)
