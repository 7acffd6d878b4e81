"""The server: `POST /select`, and OpenAI's chat protocol in front of a VLM server.

To start it from your own code:

    service = Service(load_selector(checkpoint), read_pool("pool.jsonl"), shots=2)
    serve(make_app(service, Upstream("http://127.0.0.1:8001/v1")), "127.0.0.1", 8000)
"""

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import exp
from threading import Lock
from typing import Any, Final

from lever_plus.data.images import image_url
from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback
from lever_plus.files.checking import Row, checked
from lever_plus.files.json_files import parse_json
from lever_plus.hosts.pictures import Pictures
from lever_plus.hosts.serve.batches import Batches, BusyError
from lever_plus.hosts.serve.proxy import Proxy, unless_gone
from lever_plus.hosts.serve.service import Asked, PoolRow, Service
from lever_plus.hosts.serve.upstream import Upstream
from lever_plus.hosts.serve.web import (
    ADVICE,
    KEY_VARIABLE,
    Door,
    body_of,
    client_error,
    error_reply,
    own_key,
)
from lever_plus.selectors.base import Selection
from lever_plus.vlm.prompt import CHAT, PromptFormat
from lever_plus.vlm.request import Request as VlmRequest
from lever_plus.vlm.request import Vlm

with needs("serve", "lever-plus serve"):
    import uvicorn
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

LOG: Final = logging.getLogger("lever_plus")
CLIENTS: Final = 512
"""Most connections at once; further ones are answered with status 503."""
GRACE_SECONDS: Final = 30
"""How long requests that are under way may take after the server is told to stop."""
PLACES: Final = "POST /select, POST /v1/chat/completions, GET /v1/models, GET /health"


class SelectRow(Row):
    """The body of a request to /select.

    Attributes:
        image: A data URL.
        question: The question about the image.
        shots: Number of demonstrations; None: as the server was started with.
        pool: Examples to choose from; None: the server's pool.
        images: Whether the reply has the demonstrations' images, as data URLs.
        answer: Whether the VLM also answers the question, without and with demonstrations.
    """

    image: str
    question: str
    shots: int | None = None
    pool: tuple[PoolRow, ...] | None = None
    images: bool = True
    answer: bool = False


class Selecting:
    """`POST /select`."""

    def __init__(
        self, service: Service, batches: Batches[Asked, Selection], vlm: Vlm | None
    ) -> None:
        """Keep what the endpoint needs.

        Args:
            service: Prepares questions.
            batches: Chooses demonstrations for several questions together.
            vlm: Answers one question at a time; None: there is no VLM.
        """
        self._service, self._batches, self._vlm = service, batches, vlm
        self._asking = Lock()

    async def select(self, request: Request) -> JSONResponse:
        """Return the demonstrations for a question, and the VLM's answers if they are asked for.

        Raises:
            UserError: The request is not a `SelectRow`, its image can't be opened, the pool is too
                small, or there is no VLM to answer.
            RequestError: See `body_of`; or the client has disconnected.
        """
        body = await body_of(request)
        async with self._batches:
            with Pictures() as pictures:
                row, asked = await self._batches.beside(self._asked, body, pictures)
                chosen = await self._batches.ask(asked)
                found = self._batches.beside(self._found, row, asked, chosen)
                return JSONResponse(await unless_gone(request, found))

    def _asked(self, body: bytes, pictures: Pictures) -> tuple[SelectRow, Asked]:
        row = checked(SelectRow, parse_json(body, "the request", ADVICE), "the request", ADVICE)
        if row.answer and self._vlm is None:
            raise UserError('"answer" needs a VLM on this machine: start the server with --vlm.')
        return row, self._service.asked(pictures, row.image, row.question, row.shots, row.pool)

    def _found(self, row: SelectRow, asked: Asked, chosen: Selection) -> dict[str, Any]:
        found: dict[str, Any] = {
            "demonstrations": [
                {
                    "question_id": example.question_id,
                    **({"image": image_url(example.image)} if row.images else {}),
                    "question": example.question,
                    "answer": example.answer,
                    "probability": round(exp(log_prob), 6),
                }
                for example, log_prob in zip(chosen.examples, chosen.log_probs, strict=True)
            ]
        }
        if row.answer and self._vlm is not None:
            prompts = [VlmRequest((), asked.query), VlmRequest(chosen.examples, asked.query)]
            with self._asking:
                answers = self._vlm.answers(prompts, description="")
            found |= dict(zip(("answer_without", "answer_with"), answers, strict=True))
        return found


def make_app(
    service: Service,
    upstream: Upstream | None = None,
    vlm: Vlm | None = None,
    prompt: PromptFormat = CHAT,
) -> FastAPI:
    """Return the ASGI application.

    Args:
        service: Chooses demonstrations.
        upstream: The VLM server behind /v1; None: there is no /v1.
        vlm: The VLM that answers questions of /select; None: they can't be answered.
        prompt: Its instruction is put after every question that goes to the upstream.

    Raises:
        UserError: The key in the environment can't be used.
    """
    batches: Batches[Asked, Selection] = Batches(service.select_all)

    @asynccontextmanager
    async def opened(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(batches.close)
            if upstream is not None:
                await stack.enter_async_context(upstream)
            yield

    # No OpenAPI pages: FastAPI's would load scripts from other hosts.
    app = FastAPI(lifespan=opened, openapi_url=None, redirect_slashes=False)
    door = [Depends(Door(own_key()))]
    selecting = Selecting(service, batches, vlm)
    app.add_api_route("/select", selecting.select, methods=["POST"], dependencies=door)
    app.add_api_route("/health", _health, methods=["GET"])
    if upstream is not None:
        proxy = Proxy(service, batches, upstream, prompt)
        app.include_router(proxy.router(), dependencies=door)
    app.add_exception_handler(UserError, _refused)
    app.add_exception_handler(HTTPException, partial(_elsewhere, proxied=upstream is not None))
    app.add_exception_handler(Exception, _failed)
    return app


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, BusyError):
        return error_reply(str(error), 503, {"Retry-After": "1"})
    return client_error(error if isinstance(error, UserError) else UserError(str(error)))


async def _elsewhere(request: Request, error: Exception, *, proxied: bool) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 404
    start = "" if proxied else " (/v1 with --upstream)"
    message = f"there is no {request.method} {request.url.path[:80]} here, only {PLACES}{start}."
    return error_reply(message, status)


async def _failed(_request: Request, _error: Exception) -> JSONResponse:
    return error_reply("the server failed because of a bug: see its log.", 500)


def check_host(host: str) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        UserError: The address is not a loopback address, and the environment has no key.
    """
    if not is_loopback(host) and not own_key():
        raise UserError(
            f"anyone who can reach {host} could use this server: set {KEY_VARIABLE} to a key that "
            "requests must have, or leave out --host."
        )


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        UserError: See `check_host`; or the address is in use, or does not belong to this machine.
    """
    check_host(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With IPPROTO_TCP: otherwise asyncio leaves Nagle's algorithm on, and replies wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CLIENTS)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(
            f"the server cannot listen on {host}:{port} ({error}): choose another --port or --host."
        ) from error


def server_of(app: FastAPI) -> uvicorn.Server:
    """Return a server for an application; run it with a socket that listens."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CLIENTS,
            backlog=CLIENTS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def serve(
    app: FastAPI, host: str, port: int, ready: Callable[[str], None] = lambda _address: None
) -> None:
    """Serve until the process is told to stop; requests that are under way are finished first.

    Args:
        app: The application, from `make_app`.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        ready: Called with the URL, such as http://127.0.0.1:8000, once the server listens.

    Raises:
        UserError: See `listening`.
    """
    with listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}")
        server_of(app).run(sockets=[listener])
