"""The VLM server behind the proxy: its replies, unchanged, or an error that explains why none came.

Key, certificates, proxies and connection timeout are the same as for `vlm.kind: openai`. A reply is
read completely before it is passed on, so that one that breaks off becomes an error; a stream of
events is passed on as it comes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from lever_plus.config.vlm import base_url
from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets
from lever_plus.hosts.serve.web import RequestError
from lever_plus.vlm.backends.client import open_client
from lever_plus.vlm.backends.exchange import CONNECT_SECONDS, address_of
from lever_plus.vlm.backends.words import quoted

REPLY_BYTES: Final = 64 * 2**20
CONNECTIONS: Final = 256
EVENTS: Final = "text/event-stream"
_OF_A_CONNECTION: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "content-length", "date", "server", "set-cookie"}
)
"""Headers of a reply that are about the connection to the upstream, not about the reply."""


class Events:
    """A stream of events as it comes; its user must close it."""

    def __init__(self, pieces: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        """Keep the pieces, and what holds their connection."""
        self._pieces, self._stack = pieces, stack

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces."""
        return self._pieces

    async def aclose(self) -> None:
        """Close the connection, whether or not the stream has ended."""
        await self._stack.aclose()


class Reply(NamedTuple):
    """A reply of the upstream.

    Attributes:
        status: HTTP status.
        headers: Headers without those that concern only the connection to the upstream.
        body: The whole body, or a stream of events.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Events


class Upstream:
    """An OpenAI-compatible server; an asynchronous context."""

    def __init__(self, url: str, timeout_s: float = 120.0) -> None:
        """Check the URL; the server is not contacted yet.

        Args:
            url: Base URL, such as http://127.0.0.1:8001/v1.
            timeout_s: Longest wait in seconds for the whole reply; for a stream, until it begins
                and between two pieces.

        Raises:
            UserError: The URL is not valid, or contains a key.
        """
        try:
            self.url = base_url(url)
        except ValueError as error:
            raise UserError(f"--upstream: {error}.") from error
        self._timeout_s = timeout_s
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        """Open the client; raises UserError like `client.open_client`."""
        client = open_client(self.url, CONNECTIONS, min(CONNECT_SECONDS, self._timeout_s))
        self._client = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._stack.aclose()

    @property
    def shown(self) -> str:
        """The server's URL without secrets, for messages."""
        return without_secrets(self.url)

    async def ask(self, endpoint: str, content: bytes | None = None) -> Reply:
        """Return the server's reply, whatever its status.

        Args:
            endpoint: Path below the base URL, such as chat/completions.
            content: Body of a POST request; None sends a GET request.

        Raises:
            RequestError: There is no usable reply (status 502), or none in time (504).
        """
        import httpx2

        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await stack.enter_async_context(
                        self._client.stream(
                            "GET" if content is None else "POST",
                            address_of(self.url, endpoint),
                            content=content,
                            headers={"Accept": "*/*"},
                        )
                    )
                    self._check(reply)
                    if not _is_stream(reply):
                        body = await self._whole(reply)
                        return Reply(reply.status_code, _passed(reply.headers), body)
            except (TimeoutError, httpx2.TimeoutException) as error:
                raise self._late() from error
            except httpx2.HTTPError as error:
                raise self._broken(error) from error
            events = Events(self._events(reply), stack.pop_all())
        return Reply(reply.status_code, _passed(reply.headers), events)

    async def _whole(self, reply: Any) -> bytes:
        read = bytearray()
        async for chunk in reply.aiter_raw():
            read += chunk
            if len(read) > REPLY_BYTES:
                raise RequestError(f"{self.shown} sent more than {REPLY_BYTES:,} bytes.", 502)
        return bytes(read)

    async def _events(self, reply: Any) -> AsyncIterator[bytes]:
        """Yield the pieces of a stream; if it breaks off, the last event says so."""
        import httpx2

        pieces = aiter(reply.aiter_raw())
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    piece = await anext(pieces, b"")
            except (TimeoutError, httpx2.TimeoutException):
                yield _event(self._late())
                return
            except httpx2.HTTPError as error:
                yield _event(self._broken(error))
                return
            if not piece:
                return
            yield piece

    def _check(self, reply: Any) -> None:
        if 300 <= reply.status_code < 400:
            place = quoted(reply.headers.get("location", "")) or "nowhere"
            raise RequestError(
                f"{self.shown} redirects to {place}, but redirects are not followed: if that is "
                "the right server, set --upstream to it.",
                502,
            )

    def _late(self) -> RequestError:
        return RequestError(
            f"{self.shown} did not answer within {self._timeout_s:g} s: see its log, or set a "
            "longer --timeout.",
            504,
        )

    def _broken(self, error: Exception) -> RequestError:
        why = quoted(str(error) or type(error).__name__)
        return RequestError(
            f"{self.shown} sent no reply ({why}): start that server, or correct --upstream.", 502
        )


def _is_stream(reply: Any) -> bool:
    kind: str = reply.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == EVENTS


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in _OF_A_CONNECTION}


def _event(broken: RequestError) -> bytes:
    error = {"message": without_secrets(str(broken)), "type": "server_error"}
    return b"\n\ndata: " + json.dumps({"error": error}).encode() + b"\n\n"
