"""Likelihoods of answers, in the cheapest way that a server offers.

The usual way is to let the server echo the log-probabilities of a prompt, but then vLLM does not
use its prefix cache. A cheaper way is to ask, for each token of the answer, for its log-probability
as the next token. Which ways a server offers is found out by trying them: servers ignore fields
that they do not know, so only the reply tells. A way is used only if its values agree with those of
another way.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.vlm.backends.chat import CONTINUED, Chat
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.replies import Echo, echoed, following, next_tokens, prompt_length
from lever_plus.vlm.backends.spelling import Speller, Spelling, begun_with
from lever_plus.vlm.backends.work import Asking
from lever_plus.vlm.prompt import Message

LOG: Final = logging.getLogger("lever_plus")
ECHO_BYTES: Final = 64 * 2**20
"""Largest echo of a prompt; one of 100,000 tokens takes about ten megabytes."""
MOST_AT_ONCE: Final = 128
"""The number of tokens whose log-probabilities vLLM gives in one reply."""
FORCING: Final = 100
"""The largest bias of the protocol: with it, no other token can be chosen."""
AGREEMENT: Final = 0.1
"""Nats by which two ways may differ per token; in bfloat16 the state of a server changes
log-probabilities by 0.06."""
TELLING: Final = 0.5
"""A token must be at least so unlikely (minus its log-probability, in nats) to show a difference
between ways: for a certain token all of them give 0."""
TRIALS: Final = 8
"""Largest number of prompts that are tried."""
ECHO: Final = "one echo"
ECHOES: Final = "two echoes"
Way = Callable[[Chat, Asking, Sequence[Spelling]], Awaitable[list[list[float] | None]]]
"""Returns the log-probabilities of each answer's tokens; None for an answer whose tokens in the
server's prompt are not those of its spelling."""


class Likelihoods:
    """Computes log-probabilities of answers, in the way that `choose` has found.

    Attributes:
        way: Name of the way; "" before one is chosen.
    """

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.way = ""
        self._speller = Speller()

    @property
    def shown(self) -> str:
        """The name of the way that is used."""
        return self.way or ECHOES

    @property
    def echoes(self) -> bool:
        """Whether prompts are echoed, so that the server does not use its prefix cache."""
        return self.shown in (ECHO, ECHOES)

    async def score(self, chat: Chat, asking: Asking) -> list[list[float]]:
        """Return the log-probability of each token of each answer.

        For an answer whose tokens the server does not tell, two echoes are used.

        Raises:
            UserError: The server gives no log-probabilities, or those of other tokens.
        """
        return await self._by(self.shown, chat, asking)

    async def choose(self, chat: Chat, askings: Iterable[Asking]) -> None:
        """Find the cheapest way that the server offers and that agrees with another way.

        Args:
            chat: The conversation with the server.
            askings: Prompts that will be scored; the first ones are tried until one has a token
                unlikely enough to show a difference.

        Raises:
            UserError: The server offers no way.
        """
        if (await chat.tell()).version is None:
            self.way = ECHOES
            return
        for asking in islice(askings, TRIALS):
            # An answer written twice has several tokens, unlikely ones among them.
            trial = [each for a in asking.answers[:1] for each in (a, f"{a} {a}")]
            known = [answer for answer in trial if await self._speller.of(chat, answer)]
            if known and await self._tell_apart(chat, Asking(asking.turns, known, asking.what)):
                return

    async def _tell_apart(self, chat: Chat, asking: Asking) -> bool:
        """Choose by one prompt; return False if its tokens are too likely to show differences."""
        found: dict[str, list[float]] = {}
        errors: list[UserError] = []
        for way in (ECHOES, *WAYS):
            try:
                scores = await self._by(way, chat, asking, strict=True)
            except UserError as error:
                if isinstance(error, ServerError) and error.passing:
                    raise
                errors.append(error)
            else:
                found[way] = [value for score in scores for value in score]
        if not found:
            raise errors[0]
        if min(min(values) for values in found.values()) > -TELLING:
            return False
        for way in WAYS:
            others = [found[other] for other in found if other != way]
            if way not in found or not others:
                continue
            apart = max(abs(a - b) for a, b in zip(found[way], others[0], strict=True))
            if apart <= AGREEMENT:
                self.way = way
                LOG.info("%s: likelihoods by %s (differences %.2g)", chat.where, way, apart)
                return True
            LOG.warning(
                "%s: likelihoods by %s differ from another way's by %.2g nats per token, so that "
                "way is not used.",
                *(chat.where, way, apart),
            )
        if ECHOES not in found:
            raise errors[0]
        self.way = ECHOES
        return True

    async def _by(
        self, way: str, chat: Chat, asking: Asking, *, strict: bool = False
    ) -> list[list[float]]:
        """Score in one way; where it fails, by two echoes or, if `strict`, with an error."""
        if way == ECHOES:
            return [await _two_echoes(chat, asking, answer) for answer in asking.answers]
        spelled = [await self._speller.of(chat, answer) for answer in asking.answers]
        known = [each for each in spelled if each]
        scored = dict(zip(known, await WAYS[way](chat, asking, known), strict=True))
        found = []
        for answer, spelling in zip(asking.answers, spelled, strict=True):
            score = scored.get(spelling) if spelling else None
            if score is None and strict:
                raise UserError(
                    f"{chat.place(asking.what)}: its tokens are not those of {answer!r}."
                )
            found.append(score or await _two_echoes(chat, asking, answer))
        return found


async def _two_echoes(chat: Chat, asking: Asking, answer: str) -> list[float]:
    """Score an answer by the tokens that a chat with it has after those of the prompt alone."""
    prompt = await _echo(chat, asking.turns, {}, asking.what)
    whole = await _echo(chat, begun_with(asking.turns, answer), CONTINUED, asking.what)
    return following(prompt, whole, answer, chat.place(asking.what))


async def _one_echo(
    chat: Chat, asking: Asking, spelled: Sequence[Spelling]
) -> list[list[float] | None]:
    """Score answers by the last tokens of a chat with each, if these are its spelling."""
    found: list[list[float] | None] = []
    for answer, ids, _ in spelled:
        whole = await _echo(chat, begun_with(asking.turns, answer), CONTINUED, asking.what)
        end = whole[-len(ids) :]
        same = [each[0] for each in end] == [str(each) for each in ids]
        found.append([value for _, value, _ in end] if same else None)
    return found


async def _echo(
    chat: Chat, turns: list[Message], options: dict[str, bool], what: str
) -> list[Echo]:
    """Return the tokens of a prompt with their log-probabilities."""
    asked = {"max_tokens": 1, "prompt_logprobs": 0, **options}
    reply = await chat.complete(turns, asked, ECHO_BYTES)
    return echoed(reply, chat.params.model, chat.place(what))


def _token_by_token(fields: Callable[[list[int]], dict[str, Any]], at_once: int) -> Way:
    """Return a way that asks for the log-probabilities of given tokens as the next one.

    Args:
        fields: Returns the fields of a request that asks for these tokens.
        at_once: How many tokens one request can ask for.
    """

    async def score(
        chat: Chat, asking: Asking, spelled: Sequence[Spelling]
    ) -> list[list[float] | None]:
        # Answers with equal first tokens are asked together: {tokens so far: (text, next tokens)}.
        wanted: dict[tuple[int, ...], tuple[str, dict[int, None]]] = {}
        for _, ids, begun in spelled:
            for count, (token, text) in enumerate(zip(ids, begun, strict=True)):
                wanted.setdefault(ids[:count], (text, {}))[1][token] = None
        values: dict[tuple[int, ...], float] = {}
        length: int | None = None
        for so_far, (text, following_) in wanted.items():
            turns = begun_with(asking.turns, text) if so_far else asking.turns
            tokens = list(following_)
            for start in range(0, len(tokens), at_once):
                some = tokens[start : start + at_once]
                options = {**NEXT_TOKEN, **fields(some), **(CONTINUED if so_far else {})}
                reply = await chat.complete(turns, options)
                place = chat.place(asking.what)
                found = next_tokens(reply, some, chat.params.model, place)
                here = prompt_length(reply)
                length = length if so_far else here
                # The server must have read the prompt and then exactly the tokens so far.
                if not so_far or (length and here == length + len(so_far)):
                    values.update({(*so_far, token): value for token, value in found.items()})
        return [_taken(values, ids) for _, ids, _ in spelled]

    return score


def _taken(values: dict[tuple[int, ...], float], ids: tuple[int, ...]) -> list[float] | None:
    """Return the values of an answer's tokens, or None if one is missing."""
    path = [values.get(ids[: count + 1]) for count in range(len(ids))]
    found = [value for value in path if value is not None]
    return found if len(found) == len(path) else None


NEXT_TOKEN: Final = {"max_tokens": 1, "logprobs": True, "return_tokens_as_token_ids": True}
WAYS: Final[dict[str, Way]] = {
    "logprob_token_ids": _token_by_token(lambda ids: {"logprob_token_ids": ids}, MOST_AT_ONCE),
    "logit_bias": _token_by_token(lambda ids: {"logit_bias": {str(ids[0]): FORCING}}, 1),
    "allowed_token_ids": _token_by_token(lambda ids: {"allowed_token_ids": ids}, 1),
    ECHO: _one_echo,
}
"""The ways by name, cheapest first; `ECHOES`, which is not among them, costs the most."""
