"""A VLM behind an OpenAI-compatible server (vLLM, SGLang, ...): the way to scale out.

Demonstrations are earlier turns of a chat, images are data URLs. Likelihoods need a server that
echoes the log-probabilities of its prompt (`prompt_logprobs`, as vLLM does); another is refused.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import check_images
from lever_plus.data.images import image_url
from lever_plus.errors import UserError
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.fitting import Fitting
from lever_plus.vlm.backends.loops import run_to_end
from lever_plus.vlm.backends.replies import Echo, answer_of, echoed, log_likelihood, model_names
from lever_plus.vlm.backends.servers import Route, Servers, Shares
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.prompt import Message, PromptFormat, message_hash, messages
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.usage import Usage

Result = TypeVar("Result")
KEPT_IMAGES: Final = 1024
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)
ECHO_BYTES: Final = 64 * 2**20
"""A prompt of a hundred thousand tokens has ten megabytes of log-probabilities."""
CONTINUED: Final = {"add_generation_prompt": False, "continue_final_message": True}
"""The last message is the beginning of the assistant's turn."""


class OpenAiVlm:
    """A frozen VLM on a server; requests are under way side by side, a bounded number of them."""

    def __init__(self, params: OpenAiVlmParams) -> None:
        """Name the server; nothing is asked yet."""
        self.params = params
        self.prompt = PromptFormat(instruction=params.instruction)
        self.usage = Usage()
        self._fitting = Fitting()
        self.identity = VlmIdentity(
            model=params.model,
            revision=params.revision,
            dtype=params.dtype,
            prompt_hash=message_hash(self.prompt),
            generation=f"server, greedy, max_new_tokens={params.max_new_tokens}",
        )

    def instructed(self, instruction: str) -> "OpenAiVlm":
        """Return this VLM with another instruction; they share their usage.

        Raises:
            UserError: The instruction cannot be in a prompt.
        """
        other = OpenAiVlm(self.params.model_copy(update={"instruction": instruction}))
        other.usage = self.usage
        return other

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, greedily.

        Raises:
            UserError: The server can't be reached, does not know the model, keeps failing, or its
                reply holds no answer.
        """
        return run_to_end(
            partial(self._all, requests, self._answer, self.params.max_new_tokens), done
        )

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: As above, or the server does not echo the log-probabilities of its prompt.
        """
        return run_to_end(partial(self._all, requests, self._log_likelihood, None), done)

    async def _all(
        self,
        requests: Sequence[Request],
        ask: Callable[[Route, Request], Awaitable[Result]],
        most: int | None,
        done: Done[Result],
    ) -> list[Result]:
        """Ask everything with `concurrency` workers a server; the first failure ends them all.

        most: Most tokens of an answer; None where it is part of the prompt.
        """
        settings = self.params
        results: dict[int, Result] = {}
        workers = min(settings.concurrency, len(requests))
        shares = Shares([_beginning(request) for request in requests], settings.urls)
        servers = Servers(
            settings.urls,
            settings.model,
            settings.timeout_s,
            settings.patience_s,
            max(1, workers),
        )

        async def work(number: int) -> None:
            route = Route(servers, number)
            while (i := shares.next(number)) is not None:
                try:
                    results[i] = await ask(route, requests[i])
                except ServerError as error:
                    raise await self._with_models(route, error) from error
                done([i], [results[i]])

        async with servers:
            if requests:
                await self._check_sizes(servers, requests, most)
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(len(settings.urls)):
                        for _ in range(workers):
                            group.create_task(work(number))
            except ExceptionGroup as failed:  # not `except*`: 3.11.2 wraps what is raised in there
                raise failed.exceptions[0] from None
        return [results[i] for i in range(len(requests))]

    async def _check_sizes(
        self, servers: Servers, requests: Sequence[Request], most: int | None
    ) -> None:
        """Refuse prompts that are too long; arguments as `_all`."""

        def posted(request: Request) -> dict[str, Any]:
            turns, options = self.messages(request), {}
            if most is None:
                turns, options = [*turns, _begun(scored_answer(request))], CONTINUED
            return {"model": self.params.model, "messages": turns, **options}

        # An echoed prompt is followed by one token.
        await self._fitting.check(servers.each, requests, posted, 1 if most is None else most)

    async def _with_models(self, server: Route, error: ServerError) -> UserError:
        """Return an error that says, where the model is unknown, which ones there are."""
        if error.status not in (200, 400, 404, 422):
            return error
        try:
            names = model_names(await server.ask("models"))
        except UserError:
            return error
        if not names or self.params.model in names:
            return error
        offered = quoted(", ".join(names))
        return UserError(f"{error} The server offers {offered}, not {self.params.model}.")

    async def _answer(self, server: Route, request: Request) -> str:
        settings = self.params
        body = {
            "model": settings.model,
            "messages": self.messages(request),
            "max_tokens": settings.max_new_tokens,
            "temperature": 0.0,
        }
        reply = await server.ask("chat/completions", body)
        where = self._place(server, request)
        return answer_of(reply, settings.model, settings.max_new_tokens, where)

    async def _log_likelihood(self, server: Route, request: Request) -> float:
        """Score the answer as the start of the assistant's turn, after the prompt's own tokens."""
        turns, answer = self.messages(request), scored_answer(request)
        prompt = await self._echo(server, request, turns, {})
        whole = await self._echo(server, request, [*turns, _begun(answer)], CONTINUED)
        return log_likelihood(prompt, whole, answer, self._place(server, request))

    async def _echo(
        self, server: Route, request: Request, turns: list[Message], options: dict[str, Any]
    ) -> list[Echo]:
        """Return every token of a prompt."""
        body = {
            "model": self.params.model,
            "messages": turns,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            **options,
        }
        reply = await server.ask("chat/completions", body, ECHO_BYTES)
        return echoed(reply, self.params.model, self._place(server, request))

    @staticmethod
    def _place(server: Route, request: Request) -> str:
        query = request.query
        return f"{server.shown}, reply to {quoted(query.question, 80)!r} ({query.image})"

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


def _beginning(request: Request) -> str:
    """Return what a prompt begins with, which a server keeps in its prefix cache."""
    first = request.demonstrations[0] if request.demonstrations else request.query
    return f"{first.image_sha256 or first.image} {first.question}"


def _begun(answer: str) -> Message:
    """Return an assistant's turn that begins with an answer."""
    return {"role": "assistant", "content": answer}
