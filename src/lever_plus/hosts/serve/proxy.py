"""`/v1`: a proxy in front of a VLM server with OpenAI's protocol, which adds demonstrations.

A request is passed on unchanged, except for the added turns of demonstrations (`conversation`),
which are the same as the pipeline would send (`chat_turns`). Replies are passed back unchanged.
"""

import asyncio
import json
from collections.abc import Awaitable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from lever_plus.data.examples import Example
from lever_plus.errors import UserError, needs
from lever_plus.files.json_files import parse_json
from lever_plus.hosts.pictures import Pictures
from lever_plus.hosts.serve.batches import Batches
from lever_plus.hosts.serve.conversation import Question, question_in, with_demonstrations
from lever_plus.hosts.serve.service import Asked, Service
from lever_plus.hosts.serve.upstream import Events, Reply, Upstream
from lever_plus.hosts.serve.web import ADVICE, RequestError, body_of, described
from lever_plus.selectors.base import Selection
from lever_plus.vlm.backends.turns import chat_turns
from lever_plus.vlm.prompt import PromptFormat

with needs("serve", "lever-plus serve"):
    from fastapi import APIRouter, Request
    from fastapi.responses import Response, StreamingResponse

COUNT: Final = "X-Lever-Plus-Demonstrations"
IDS: Final = "X-Lever-Plus-Question-Ids"
WHY: Final = "X-Lever-Plus-Why-None"
Made = TypeVar("Made")


class _Prepared(NamedTuple):
    """A request with its question; if it gets no demonstrations, None and the reason `why`."""

    content: dict[str, Any]
    question: Question | None
    asked: Asked | None
    why: str = ""


class _Stream(StreamingResponse):
    """A reply that is passed on piece by piece; its connection is always closed at the end."""

    def __init__(self, events: Events, status: int, headers: dict[str, str]) -> None:
        super().__init__(events, status, headers)
        self._events = events

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


class Proxy:
    """Puts demonstrations into chats, and passes the chats on."""

    def __init__(
        self,
        service: Service,
        batches: Batches[Asked, Selection],
        upstream: Upstream,
        prompt: PromptFormat,
    ) -> None:
        """Keep what the endpoints need.

        Args:
            service: Prepares questions.
            batches: Chooses demonstrations for several questions together.
            upstream: The VLM server; it must be open while requests come.
            prompt: Its instruction is put after every question.
        """
        self._service, self._batches = service, batches
        self._upstream, self._prompt = upstream, prompt

    def router(self) -> APIRouter:
        """Return the endpoints."""
        routes = APIRouter(prefix="/v1")
        routes.add_api_route("/chat/completions", self.complete, methods=["POST"])
        routes.add_api_route("/models", self.models, methods=["GET"])
        return routes

    async def models(self) -> Response:
        """Return the models that the upstream offers."""
        return _response(await self._upstream.ask("models"), {})

    async def complete(self, request: Request) -> Response:
        """Return the upstream's reply to a chat with demonstrations.

        Raises:
            UserError: The request is not a JSON object, its image can't be opened, or the pool is
                too small for it.
            RequestError: See `body_of` and `Upstream.ask`; or the images of demonstrations can't be
                read any more (500).
        """
        body = await body_of(request)
        async with self._batches:
            with Pictures() as pictures:
                found = await self._batches.beside(self._prepared, body, pictures)
                chosen: Sequence[Example] = ()
                if found.asked is not None:
                    chosen = (await self._batches.ask(found.asked)).examples
            if found.question is not None and chosen:
                body = await self._batches.beside(self._with, found.content, found.question, chosen)
        why = found.why or ("" if chosen else "none is worth its price")
        headers = {COUNT: str(len(chosen)), IDS: ", ".join(str(e.question_id) for e in chosen)}
        headers |= {WHY: why} if why else {}
        reply = await unless_gone(request, self._upstream.ask("chat/completions", body))
        return _response(reply, {name: value for name, value in headers.items() if value})

    def _prepared(self, body: bytes, pictures: Pictures) -> _Prepared:
        content = parse_json(body, "the request", ADVICE)
        if not isinstance(content, dict):
            raise UserError(
                f"the request is {described(content)}, but must be a JSON object: {ADVICE}."
            )
        found = question_in(content.get("messages"), self._prompt)
        if isinstance(found, str):
            return _Prepared(content, None, None, found)
        return _Prepared(content, found, self._service.asked(pictures, found.image, found.text))

    def _with(
        self, content: dict[str, Any], question: Question, chosen: Sequence[Example]
    ) -> bytes:
        try:
            shown = chat_turns(chosen, None, self._prompt)
        except UserError as error:  # the server's fault: a client can't repair the pool
            raise RequestError(str(error), 500) from error
        turns = with_demonstrations(content["messages"], question, shown, self._prompt)
        return json.dumps({**content, "messages": turns}).encode()


async def unless_gone(request: Request, reply: Awaitable[Made]) -> Made:
    """Wait for a reply and return it; if the client disconnects first, cancel the work.

    Args:
        request: The client's request, whose body has been read.
        reply: The reply to wait for.

    Raises:
        RequestError: The client has disconnected.
    """
    work = asyncio.ensure_future(reply)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise RequestError("the client has disconnected.", 499)
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()


def _response(reply: Reply, own: dict[str, str]) -> Response:
    headers = {**reply.headers, **own}
    if isinstance(reply.body, bytes):
        return Response(reply.body, reply.status, headers)
    return _Stream(reply.body, reply.status, headers)
