"""Serves the page: on loopback unless told, and nothing of it comes from another host."""

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
"""What the browser may load: Gradio's own scripts are inline, nothing is from elsewhere."""
LARGEST_UPLOAD: Final = "64mb"
PATIENCE_S: Final = 10
"""How long a question that is being answered may keep a server that is told to end."""
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Closed:
    """Tells the browser, with every answer, to load nothing from another host."""

    def __init__(self, app: Any) -> None:
        """Stand before an ASGI application."""
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
    """Ends although pages are open: each of them keeps a connection, and never hangs up itself."""

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

    Uploaded images are in a temporary folder, which goes when the application ends.

    Args:
        play: What it is about.
        host: It listens on; on loopback it answers by no other name.
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
        # Another site whose name leads here must not use the page through a visitor's browser.
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

    Raises:
        UserError: The port cannot be listened on.
    """
    try:
        listening = socket.create_server((host, port), family=_family(host))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} of {host} cannot be listened on ({error}): name another with --port."
        ) from error
    config = uvicorn.Config(
        application(play, host, price), log_level="warning", timeout_graceful_shutdown=PATIENCE_S
    )
    with listening:
        Server(config).run(sockets=[listening])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
