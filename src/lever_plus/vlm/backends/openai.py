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
from lever_plus.vlm.backends.exchange import Server, ServerError
from lever_plus.vlm.backends.loops import run_to_end
from lever_plus.vlm.backends.replies import Echo, answer_of, echoed, log_likelihood, model_names
from lever_plus.vlm.backends.words import quoted
from lever_plus.vlm.prompt import Message, PromptFormat, message_hash, messages
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.usage import Usage

Result = TypeVar("Result")
KEPT_IMAGES: Final = 1024
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)
ECHO_BYTES: Final = 64 * 2**20
"""A prompt of a hundred thousand tokens has ten megabytes of log-probabilities."""


class OpenAiVlm:
    """A frozen VLM on a server; requests are under way side by side, a bounded number of them."""

    def __init__(self, params: OpenAiVlmParams) -> None:
        """Name the server; nothing is asked yet."""
        self.params = params
        self.prompt = PromptFormat(instruction=params.instruction)
        self.usage = Usage()
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
        return run_to_end(partial(self._all, requests, self._answer), done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: As above, or the server does not echo the log-probabilities of its prompt.
        """
        return run_to_end(partial(self._all, requests, self._log_likelihood), done)

    async def _all(
        self,
        requests: Sequence[Request],
        ask: Callable[[Server, Request], Awaitable[Result]],
        done: Done[Result],
    ) -> list[Result]:
        """Ask everything with `concurrency` workers; the first failure ends them all."""
        settings = self.params
        results: dict[int, Result] = {}
        waiting = iter(range(len(requests)))
        workers = min(settings.concurrency, len(requests))
        server = Server(
            settings.url, settings.model, settings.timeout_s, settings.retries, max(1, workers)
        )

        async def work() -> None:
            for i in waiting:
                results[i] = await ask(server, requests[i])
                done([i], [results[i]])

        async with server:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(work())
            except ExceptionGroup as failed:  # not `except*`: 3.11.2 wraps what is raised in there
                first = failed.exceptions[0]
                if isinstance(first, ServerError) and first.status in (200, 400, 404, 422):
                    raise await self._with_models(server, first) from first
                raise first from None
        return [results[i] for i in range(len(requests))]

    async def _with_models(self, server: Server, error: ServerError) -> UserError:
        """Return an error that says, where the model is unknown, which ones there are."""
        try:
            names = model_names(await server.ask("models"))
        except UserError:
            return error
        if not names or self.params.model in names:
            return error
        offered = quoted(", ".join(names))
        return UserError(f"{error} The server offers {offered}, not {self.params.model}.")

    async def _answer(self, server: Server, request: Request) -> str:
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

    async def _log_likelihood(self, server: Server, request: Request) -> float:
        """Score the answer as the start of the assistant's turn, after the prompt's own tokens."""
        turns, answer = self.messages(request), scored_answer(request)
        prompt = await self._echo(server, request, turns, {})
        forced = [*turns, {"role": "assistant", "content": answer}]
        options = {"add_generation_prompt": False, "continue_final_message": True}
        whole = await self._echo(server, request, forced, options)
        return log_likelihood(prompt, whole, answer, self._place(server, request))

    async def _echo(
        self, server: Server, request: Request, turns: list[Message], options: dict[str, Any]
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
    def _place(server: Server, request: Request) -> str:
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
