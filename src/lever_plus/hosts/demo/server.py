"""The server of the page: by default on loopback, and the page loads nothing from other hosts."""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any, Final

from lever_plus.errors import UserError, needs
from lever_plus.hosts.demo.page import build, css, theme
from lever_plus.hosts.demo.play import Playground

with needs("demo", "lever-plus demo"):
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Mount

LOOPBACK: Final = ("127.0.0.1", "localhost")
POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'"
)
"""What the browser may load: inline scripts, which Gradio needs, but nothing from other hosts."""
LARGEST_UPLOAD: Final = "64mb"
PATIENCE_S: Final = 10
"""Seconds that a server which is told to end waits for a question that is being answered."""
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Closed:
    """Middleware that tells the browser, in every reply, to load nothing from other hosts."""

    def __init__(self, app: Any) -> None:
        """Wrap an ASGI application."""
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """Answer a request."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode("ascii"))
                message["headers"] = [*message.get("headers", []), header]
            await send(message)

        await self._app(scope, receive, sent)


class Server(uvicorn.Server):
    """A server that can end while pages are open, although each page keeps a connection."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the connections that Gradio keeps open, then all others."""
        app: Any = self.config.app
        for route in app.routes:
            if isinstance(route, Mount):
                mounted: Any = route.app
                mounted.stop_event.set()
        await super().shutdown(sockets)


def application(play: Playground, host: str, price: float | None = None) -> Any:
    """Return the page as an ASGI application; /health answers as soon as it runs.

    Uploaded images are in a temporary folder, which is removed when the application ends.

    Args:
        play: Answers the questions that are asked on the page.
        host: Address on which it listens; on loopback it answers only under the loopback's names.
        price: See `page.build`.
    """
    uploads = TemporaryDirectory(prefix="lever_plus")
    os.environ["GRADIO_TEMP_DIR"] = uploads.name  # read when the page is built

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with uploads:
            yield

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Closed)
    if host in LOOPBACK:
        # A site whose host name leads to this machine must not use the page via a user's browser.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return gr.mount_gradio_app(
        app,
        build(play, price),
        path="/",
        footer_links=[],
        show_error=False,
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        enable_monitoring=False,
        theme=theme(),
        css=css(),
    )


def serve(play: Playground, host: str, port: int, price: float | None = None) -> None:
    """Serve the page until the process is told to end.

    Args:
        play: Answers the questions that are asked on the page.
        host: Address to listen on.
        port: Port to listen on.
        price: See `page.build`.

    Raises:
        UserError: The address or port can't be used.
    """
    try:
        listening = socket.create_server((host, port), family=_family(host))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"the page can't be served on {host}, port {port} ({error}): choose another --port or "
            "--host."
        ) from error
    config = uvicorn.Config(
        application(play, host, price), log_level="warning", timeout_graceful_shutdown=PATIENCE_S
    )
    with listening:
        Server(config).run(sockets=[listening])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
