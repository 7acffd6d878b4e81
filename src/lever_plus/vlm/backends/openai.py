"""A VLM on an OpenAI-compatible server (vLLM, SGLang, ...), for larger models, more machines.

Demonstrations are earlier turns of a chat. Images are sent as data URLs or, if the server accepts
that, as hashes. What else a server offers is found out at the first request, see `start`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.errors import UserError
from lever_plus.vlm.backends.chat import CONTINUED, Chat
from lever_plus.vlm.backends.counters import Counted, counted
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.fitting import Fitting
from lever_plus.vlm.backends.loops import run_to_end
from lever_plus.vlm.backends.replies import answer_of, model_names
from lever_plus.vlm.backends.servers import Route, Servers, opened
from lever_plus.vlm.backends.spelling import begun_with
from lever_plus.vlm.backends.start import Start
from lever_plus.vlm.backends.told import told_before
from lever_plus.vlm.backends.turns import chat_turns
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.backends.work import Asking, Result, Work
from lever_plus.vlm.prompt import Message, PromptFormat, message_hash
from lever_plus.vlm.request import Done, Kind, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.usage import Usage

LOG: Final = logging.getLogger("lever_plus")
MANY: Final = 50
"""If none of the tokens of so many prompts came from a cache, there is a warning."""
UNUSED: Final = (
    "check that it is on (vLLM: --enable-prefix-caching), and that the beginning that prompts "
    "share is longer than one block of the cache (--block-size)"
)
ECHOED: Final = (
    "likelihoods are echoed, and vLLM does not use it for that; the server offers no other way to "
    "get them, or none that gives the same values"
)


class OpenAiVlm:
    """A frozen VLM on a server; a limited number of requests is sent at once."""

    def __init__(self, params: OpenAiVlmParams) -> None:
        """Name the server; nothing is asked yet."""
        self.params = params
        self.prompt = PromptFormat(instruction=params.instruction)
        self.usage = Usage()
        self._start = Start()
        self._fitting = Fitting()
        self._assumed: VlmIdentity | None = None
        self._warned = False
        self._named = VlmIdentity(
            model=params.model,
            revision=params.revision,
            dtype=params.dtype,
            prompt_hash=message_hash(self.prompt),
            generation=f"server, greedy, max_new_tokens={params.max_new_tokens}",
        )

    @property
    def identity(self) -> VlmIdentity:
        """Everything that its answers depend on: settings, and what the server says of itself."""
        told = self._start.known.told
        return self._named if told is None else told.identity(self._named)

    def identify(self, known: Sequence[VlmIdentity]) -> VlmIdentity:
        """Return the identity, after asking the server what it is.

        If the server is down, it is assumed to be the one whose answers were stored last: stored
        answers can then be used without it. If it must be asked later, the assumption is checked.

        Args:
            known: Identities of the stored answers, the newest last.
        """
        if self._start.known.told is None:
            before = told_before(self._named, known)
            try:
                run_to_end(partial(self._tell, patient=before is None), ignore)
            except ServerError:
                self._assumed = before or self._named
                return self._assumed
        return self.identity

    def recorded(self, kind: Kind) -> VlmIdentity:
        """Return the identity under which results are stored, and how they were made."""
        return self._start.recorded(kind, self.identity)

    def instructed(self, instruction: str) -> "OpenAiVlm":
        """Return this VLM with another instruction; both share their usage.

        Raises:
            UserError: The instruction cannot be in a prompt.
        """
        other = OpenAiVlm(self.params.model_copy(update={"instruction": instruction}))
        other.usage, other._start = self.usage, self._start
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, greedily.

        Raises:
            UserError: The server can't be reached, does not know the model, keeps failing, or sends
                a reply without an answer.
        """
        units = [[i] for i in range(len(requests))]
        return self._all("answer", requests, units, self._answer, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: As in `answers`, or the server gives no log-probabilities of tokens.
        """
        prompts: dict[Request, list[int]] = {}
        for i, request in enumerate(requests):
            scored_answer(request)
            prompts.setdefault(request._replace(answer=None), []).append(i)
        units = list(prompts.values())
        return self._all("log_likelihood", requests, units, self._log_likelihoods, done)

    def _all(
        self,
        kind: Kind,
        requests: Sequence[Request],
        units: Sequence[Sequence[int]],
        ask: Callable[[Chat, Asking], Awaitable[list[Result]]],
        done: Done[Result],
    ) -> list[Result]:
        """Ask all requests, `concurrency` units at once on each server."""

        def asking(unit: Sequence[int]) -> Asking:
            return self._asking([requests[i] for i in unit])

        async def results(chat: Chat, unit: Sequence[int]) -> list[Result]:
            return await ask(chat, asking(unit))

        work = Work(kind, units, lambda unit: _beginning(requests[unit[0]]), asking, results)
        return run_to_end(partial(self._run, requests, work), done)

    async def _run(
        self, requests: Sequence[Request], work: Work[Result], done: Done[Result]
    ) -> list[Result]:
        params, at_once = self.params, max(1, min(self.params.concurrency, len(work.units)))
        async with opened(params, at_once) as servers:
            chats = [partial(self._chat, servers, number) for number in range(len(params.urls))]
            try:
                await self._start.find_out(params, servers, work, at_once)
                self._check_assumed()
                if requests:
                    await self._check_sizes(servers, requests, work.kind)
                before = await self._counted()
                whole, run = self.usage.tokens_whole, self.usage.tokens_run
                results = await work.run(chats, params.urls, work.units, at_once, done)
                await self._count(before)
            except ServerError as error:
                raise await self._with_models(servers, error) from error
        asked = Counted(self.usage.tokens_whole - whole, self.usage.tokens_run - run)
        if work.kind == "log_likelihood":
            self.usage.likelihoods = self._start.likelihoods.shown
        unhelped = asked.whole and asked.run == asked.whole
        if unhelped and len(work.units) >= MANY and _share(requests):
            self._warn(servers.each[0].shown, work)
        return [results[i] for i in range(len(results))]

    async def _tell(self, _done: Done[object], *, patient: bool) -> list[object]:
        """Ask the server about itself; unless `patient`, only once."""
        params = self.params if patient else self.params.model_copy(update={"patience_s": 0.0})
        await self._start.tell(params)
        return []

    def _check_assumed(self) -> None:
        """Refuse a server other than the one whose stored answers were used."""
        if self._assumed is not None and self._assumed != self.identity:
            raise UserError(
                f"{self.params.urls[0]} was down when this run began, so stored answers of "
                f"{self._assumed['revision']!r} were used; now it is up, and it is "
                f"{self.identity['revision']!r}: run again."
            )

    async def _counted(self) -> Counted | None:
        """Return the server's counts of tokens, if its replies do not tell them."""
        told, counts = self._start.known.told, self._start.known.counts
        ask = told is not None and told.version is not None and not counts
        return await counted(self.params.urls) if ask else None

    async def _count(self, before: Counted | None) -> None:
        """Add the server's counts since `before`, which include requests of other users."""
        after = await self._counted()
        if before is not None and after is not None and after.whole >= before.whole:
            self.usage.tokens_whole += after.whole - before.whole
            self.usage.tokens_run += after.run - before.run

    def _warn(self, where: str, work: Work[Result]) -> None:
        """Warn once that the server's prefix cache did not help, and say why that may be."""
        if self._warned:
            return
        self._warned = True
        echoed = work.kind == "log_likelihood" and self._start.likelihoods.echoes
        LOG.warning(
            "%s: none of the tokens of %d prompts, which share demonstrations, came from the "
            "server's prefix cache: %s.",
            *(where, len(work.units), ECHOED if echoed else UNUSED),
        )

    def _chat(self, servers: Servers, number: int) -> Chat:
        return Chat(self.params, Route(servers, number), self._start.known, self.usage)

    async def _check_sizes(self, servers: Servers, requests: Sequence[Request], kind: Kind) -> None:
        """Refuse prompts that are too long."""

        def posted(request: Request) -> dict[str, Any]:
            turns, options = self.messages(request), {}
            if kind == "log_likelihood":
                turns, options = begun_with(turns, scored_answer(request)), CONTINUED
            return {"model": self.params.model, "messages": turns, **options}

        # When an answer is scored, the server generates one token.
        most = 1 if kind == "log_likelihood" else self.params.max_new_tokens
        await self._fitting.check(servers.each, requests, posted, most)

    async def _with_models(self, servers: Servers, error: ServerError) -> UserError:
        """Return the error; if the server does not have the model, add the names of its models."""
        if error.status not in (200, 400, 404, 422):
            return error
        try:
            names = model_names(await Route(servers, 0).ask("models"))
        except UserError:
            return error
        if not names or self.params.model in names:
            return error
        offered = quoted(", ".join(names))
        return UserError(f"{error} The server offers {offered}, not {self.params.model}.")

    async def _answer(self, chat: Chat, asking: Asking) -> list[str]:
        most = self.params.max_new_tokens
        reply = await chat.complete(asking.turns, {"max_tokens": most})
        return [answer_of(reply, self.params.model, most, chat.place(asking.what))]

    async def _log_likelihoods(self, chat: Chat, asking: Asking) -> list[float]:
        """Return the mean log-probability of the tokens of each answer in the assistant's turn."""
        scores = await self._start.likelihoods.score(chat, asking)
        return [sum(values) / len(values) for values in scores]

    def _asking(self, requests: Sequence[Request]) -> Asking:
        """Return the prompt that the requests share, and the answers that they score."""
        first, query = requests[0], requests[0].query
        answers = [request.answer for request in requests if request.answer is not None]
        what = f"reply to {quoted(query.question, 80)!r} ({query.image})"
        return Asking(self.messages(first), answers, what)

    def messages(self, request: Request) -> list[Message]:
        """Return a request as messages of the protocol, each image as a data URL."""
        return chat_turns(request.demonstrations, request.query, self.prompt)


def _beginning(request: Request) -> str:
    """Return a text for the beginning of a prompt, which a server may have in its prefix cache."""
    first = request.demonstrations[0] if request.demonstrations else request.query
    return f"{first.image_sha256 or first.image} {first.question}"


def _share(requests: Sequence[Request]) -> bool:
    """Return whether some prompts begin with the same demonstration."""
    shown = [request.demonstrations[0] for request in requests if request.demonstrations]
    return len(set(shown)) < len(shown)
