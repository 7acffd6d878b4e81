"""A VLM behind an OpenAI-compatible server (vLLM, SGLang, ...): the way to scale out.

Demonstrations are earlier turns of a chat, images are data URLs. Likelihoods need a server that
echoes the log-probabilities of its prompt (`prompt_logprobs`, as vLLM does); another is refused.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.images import image_url
from lever_plus.errors import UserError, needs
from lever_plus.vlm.prompt import Message, PromptFormat, message_hash, messages
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, scored_answer
from lever_plus.vlm.usage import Usage

Result = TypeVar("Result")
KEPT_IMAGES = 1024
_url = lru_cache(maxsize=KEPT_IMAGES)(image_url)


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

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, greedily.

        Raises:
            UserError: The server cannot be reached, does not know the model or keeps failing.
        """
        return asyncio.run(self._all(requests, self._answer, done))

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer.

        Raises:
            UserError: As above, or the server does not echo the log-probabilities of its prompt.
        """
        return asyncio.run(self._all(requests, self._log_likelihood, done))

    async def _all(
        self,
        requests: Sequence[Request],
        ask: Callable[[Any, Request], Awaitable[Result]],
        done: Done[Result],
    ) -> list[Result]:
        """Ask everything with `concurrency` workers; the first failure ends them all."""
        with needs("openai", "vlm.kind: openai", "set it to huggingface"):
            import openai

        settings = self.params
        results: dict[int, Result] = {}
        waiting = iter(range(len(requests)))
        key = os.environ.get("OPENAI_API_KEY", "none")
        client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=key,
            timeout=settings.timeout_s,
            max_retries=settings.retries,
        )

        async def work() -> None:
            for i in waiting:
                results[i] = await ask(client, requests[i])
                done([i], [results[i]])

        try:
            async with client, asyncio.TaskGroup() as group:
                for _ in range(min(settings.concurrency, len(requests))):
                    group.create_task(work())
        except ExceptionGroup as failed:  # not `except*`: 3.11.2 wraps what is raised in there
            first = failed.exceptions[0]
            if not isinstance(first, openai.OpenAIError):
                raise first from None
            raise UserError(
                f"{settings.url} did not answer for model {settings.model}: {first}. Start the "
                "server, or correct vlm.url and vlm.model."
            ) from first
        return [results[i] for i in range(len(requests))]

    async def _answer(self, client: Any, request: Request) -> str:
        reply = await client.chat.completions.create(
            model=self.params.model,
            messages=self.messages(request),
            max_tokens=self.params.max_new_tokens,
            temperature=0.0,
        )
        return str(reply.choices[0].message.content or "")

    async def _log_likelihood(self, client: Any, request: Request) -> float:
        """Score the answer as the start of the assistant's turn, after the prompt's own tokens."""
        turns, answer = self.messages(request), scored_answer(request)
        prompt = await self._echo(client, turns, {})
        forced = [*turns, {"role": "assistant", "content": answer}]
        options = {"add_generation_prompt": False, "continue_final_message": True}
        whole = await self._echo(client, forced, options)
        ids = [token for token, _ in whole]
        if ids[: len(prompt)] != [token for token, _ in prompt] or len(whole) == len(prompt):
            raise UserError(
                f"{self.params.url} does not continue the prompt's own tokens with the answer "
                f"{answer!r}, so its likelihood is not defined: use a local model for sft_data."
            )
        scores = [value for _, value in whole[len(prompt) :]]
        return sum(scores) / len(scores)

    async def _echo(
        self, client: Any, turns: list[Message], options: dict[str, Any]
    ) -> list[tuple[str, float]]:
        """Return (token id, log-probability) of every token of a prompt."""
        reply = await client.chat.completions.create(
            model=self.params.model,
            messages=turns,
            max_tokens=1,
            temperature=0.0,
            extra_body={"prompt_logprobs": 0, **options},
        )
        echoed = (reply.model_extra or {}).get("prompt_logprobs")
        if not echoed:
            raise UserError(
                f"{self.params.url} does not echo the log-probabilities of its prompt "
                "(prompt_logprobs): InfoScore needs them. Use a server that does, such as vLLM, or "
                "vlm.kind: huggingface."
            )
        pairs = [next(iter(entry.items())) if entry else ("", {}) for entry in echoed]
        return [(str(token), float(found.get("logprob", 0.0))) for token, found in pairs]

    def messages(self, request: Request) -> list[Message]:
        """Return a request in the protocol's form: every image as a data URL."""
        images = iter(request.images)
        turns = messages(request.demonstrations, request.query, self.prompt)
        for turn in turns:
            for part in turn["content"]:
                if part["type"] == "image":
                    url = _url(next(images))
                    part.update({"type": "image_url", "image_url": {"url": url}})
        return turns
