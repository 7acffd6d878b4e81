"""A VLM behind an OpenAI-compatible server (vLLM, SGLang, ...): the way to scale out.

Demonstrations are earlier turns of a chat, images are data URLs or, where the server takes that,
their hashes. What else a server offers is found out when it is first asked, see `start`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import check_images
from lever_plus.data.images import image_url
from lever_plus.errors import UserError
from lever_plus.vlm.backends.chat import Chat, above
from lever_plus.vlm.backends.counters import Counted, counted
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.loops import run_to_end
from lever_plus.vlm.backends.replies import answer_of, model_names
from lever_plus.vlm.backends.start import Start
from lever_plus.vlm.backends.told import told_before
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.backends.work import Asking, Result, Work
from lever_plus.vlm.prompt import Message, PromptFormat, message_hash, messages
from lever_plus.vlm.request import Done, Kind, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.usage import Usage

LOG: Final = logging.getLogger("lever_plus")
KEPT_IMAGES: Final = 1024
MANY: Final = 50
"""Prompts that share demonstrations: none of their tokens cached is worth a warning."""
UNUSED: Final = (
    "see that it is on (vLLM: --enable-prefix-caching), and that what prompts share is longer than "
    "one of its blocks (--block-size)"
)
ECHOED: Final = (
    "likelihoods are echoed, which keeps vLLM from reading it; the server offers, or agrees with, "
    "no other way to them"
)
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)


class OpenAiVlm:
    """A frozen VLM on a server; requests are under way side by side, a bounded number of them."""

    def __init__(self, params: OpenAiVlmParams) -> None:
        """Name the server; nothing is asked yet."""
        self.params = params
        self.prompt = PromptFormat(instruction=params.instruction)
        self.usage = Usage()
        self._start = Start()
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
        """What its answers depend on: the settings, and what the server has told."""
        told = self._start.known.told
        return self._named if told is None else told.identity(self._named)

    def identify(self, known: Sequence[VlmIdentity]) -> VlmIdentity:
        """Return the identity, after asking the server what it is.

        One that is down is taken to be what it was when answers were last stored, so that nothing
        but those answers is needed; once it must be asked, it must be that.

        Args:
            known: Identities that answers are stored under, the newest last.
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
        """Return what is written beside results: the identity, and how they were made."""
        return self._start.recorded(kind, self.identity)

    def instructed(self, instruction: str) -> "OpenAiVlm":
        """Return this VLM with another instruction; they share their usage.

        Raises:
            UserError: The instruction cannot be in a prompt.
        """
        other = OpenAiVlm(self.params.model_copy(update={"instruction": instruction}))
        other.usage, other._start = self.usage, self._start
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, greedily.

        Raises:
            UserError: The server can't be reached, does not know the model, keeps failing, or its
                reply holds no answer.
        """
        units = [[i] for i in range(len(requests))]
        return self._all("answer", requests, units, self._answer, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: As above, or the server gives no log-probabilities of given tokens.
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
        """Ask everything, `concurrency` units at once."""

        def asking(unit: Sequence[int]) -> Asking:
            return self._asking([requests[i] for i in unit])

        async def results(chat: Chat, unit: Sequence[int]) -> list[Result]:
            return await ask(chat, asking(unit))

        work = Work(kind, units, asking, results)
        shared = len({r.demonstrations[:1] for r in requests if r.demonstrations}) < len(requests)
        return run_to_end(partial(self._run, work, shared), done)

    async def _run(self, work: Work[Result], shared: bool, done: Done[Result]) -> list[Result]:
        at_once = max(1, min(self.params.concurrency, len(work.units)))
        async with Chat(self.params, at_once, self._start.known, self.usage) as chat:
            try:
                await chat.tell()
                self._check_assumed()
                await self._start.find_out(self.params, work, at_once)
                before = await self._counted()
                whole, run = self.usage.tokens_whole, self.usage.tokens_run
                results = await work.run(chat, work.units, at_once, done)
                await self._count(before)
            except ServerError as error:
                if error.status in (200, 400, 404, 422):
                    raise await self._with_models(chat, error) from error
                raise
        asked = Counted(self.usage.tokens_whole - whole, self.usage.tokens_run - run)
        if work.kind == "log_likelihood":
            self.usage.likelihoods = self._start.likelihoods.shown
        if shared and len(work.units) >= MANY and asked.whole and asked.run == asked.whole:
            self._warn(chat.where, work)
        return [results[i] for i in range(len(results))]

    async def _tell(self, _done: Done[object], *, patient: bool) -> list[object]:
        """Ask the server what it is; where `patient` is not asked for, once."""
        params = self.params if patient else self.params.model_copy(update={"retries": 0})
        await self._start.tell(params)
        return []

    def _check_assumed(self) -> None:
        """Refuse to go on with another server than the one whose stored answers were used."""
        if self._assumed is not None and self._assumed != self.identity:
            raise UserError(
                f"{self.params.url} was down when this run began, so answers were used that are "
                f"stored as those of {self._assumed['revision']!r}; now that it is there, it is "
                f"{self.identity['revision']!r}: run again."
            )

    async def _counted(self) -> Counted | None:
        """Return what the server has counted, where its replies do not say it."""
        told, counts = self._start.known.told, self._start.known.counts
        ask = told is not None and told.version is not None and not counts
        return await counted(above(self.params.url)) if ask else None

    async def _count(self, before: Counted | None) -> None:
        """Add what was counted since; others who asked meanwhile are counted too."""
        after = await self._counted()
        if before is not None and after is not None and after.whole >= before.whole:
            self.usage.tokens_whole += after.whole - before.whole
            self.usage.tokens_run += after.run - before.run

    def _warn(self, where: str, work: Work[Result]) -> None:
        """Say once that the server's prefix cache did not help, and why that may be."""
        if self._warned:
            return
        self._warned = True
        echoed = work.kind == "log_likelihood" and self._start.likelihoods.echoes
        LOG.warning(
            "%s: %d prompts with demonstrations in common, and no token of them came from the "
            "server's prefix cache: %s.",
            *(where, len(work.units), ECHOED if echoed else UNUSED),
        )

    async def _with_models(self, chat: Chat, error: ServerError) -> UserError:
        """Return an error that says, where the model is unknown, which ones there are."""
        try:
            names = model_names(await chat.server.ask("models"))
        except UserError:
            return error
        if not names or self.params.model in names:
            return error
        offered = quoted(", ".join(names))
        return UserError(f"{error} The server offers {offered}, not {self.params.model}.")

    async def _answer(self, chat: Chat, asking: Asking) -> list[str]:
        most = self.params.max_new_tokens
        reply = await chat.complete(asking.turns, {"max_tokens": most})
        return [answer_of(reply, self.params.model, most, asking.where)]

    async def _log_likelihoods(self, chat: Chat, asking: Asking) -> list[float]:
        """Score answers as the start of the assistant's turn, after the prompt's own tokens."""
        scores = await self._start.likelihoods.score(chat, asking)
        return [sum(values) / len(values) for values in scores]

    def _asking(self, requests: Sequence[Request]) -> Asking:
        """Return the prompt that requests share, and the answers that they score."""
        first, query = requests[0], requests[0].query
        where = f"reply to {quoted(query.question, 80)!r} ({query.image})"
        answers = [request.answer for request in requests if request.answer is not None]
        return Asking(self.messages(first), answers, f"{quoted(self.params.url)}, {where}")

    def messages(self, request: Request) -> list[Message]:
        """Return a request in the protocol's form: every image as a data URL."""
        check_images((*request.demonstrations, request.query))
        images = iter(request.images)
        turns = messages(request.demonstrations, request.query, self.prompt)
        for turn in turns:
            for part in turn["content"]:
                if part["type"] == "image":
                    url = _url(next(images))
                    part.update({"type": "image_url", "image_url": {"url": url}})
        return turns
