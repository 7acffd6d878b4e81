"""One request to a server and its reply, with limits on time and size.

A server is somebody else's program. It may be busy, send one byte per second, or hundreds of
megabytes, or an HTML page. Whatever is not a JSON object becomes an error of one sentence, which
quotes the server and says what to do.
"""

import asyncio
import email.utils
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from lever_plus.errors import UserError
from lever_plus.files.json_files import parse_json
from lever_plus.files.secrets import without_secrets
from lever_plus.vlm.backends.client import KEY_VARIABLE, open_client
from lever_plus.vlm.backends.words import advice_for, quoted, words_of

REPLY_BYTES: Final = 4 * 2**20
"""Largest reply with an answer."""
ERROR_BYTES: Final = 64 * 2**10
"""How much of an error's page is read."""
CONNECT_SECONDS: Final = 10.0
PASSING: Final = {408, 409, 425, 429, *range(500, 600)} - {501, 505}
"""HTTP statuses after which the same request may succeed."""


class ServerError(UserError):
    """A server gave no usable reply.

    Attributes:
        status: HTTP status of its last reply, if there was one.
        passing: Whether the same request may succeed later.
        wait: Seconds after which the server asks to be tried again, if it says so.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        passing: bool = False,
        wait: float | None = None,
    ) -> None:
        """Take the message and what is known about the failure."""
        super().__init__(message)
        self.status, self.passing, self.wait = status, passing, wait


class Server:
    """A server that replies with JSON objects; an asynchronous context."""

    def __init__(self, url: str, model: str, timeout_s: float, connections: int = 1) -> None:
        """Name the server; nothing is asked yet.

        Args:
            url: Base URL, such as http://127.0.0.1:8000/v1.
            model: Name of the model, for errors.
            timeout_s: Longest time from the start of a request to the last byte of its reply.
            connections: Largest number of requests at once.
        """
        self.url, self._timeout_s = url, timeout_s
        self._silent = f"{self.shown} did not answer for model {quoted(model, 100)}"
        self._connections = connections
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            UserError: See `client.open_client`.
        """
        client = open_client(self.url, self._connections, min(CONNECT_SECONDS, self._timeout_s))
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

    async def ask(
        self, endpoint: str, body: dict[str, Any] | None = None, limit: int = REPLY_BYTES
    ) -> dict[str, Any]:
        """Return the server's reply.

        Args:
            endpoint: Path after the base URL, such as chat/completions; or, with a slash before it,
                after the server's root (the base URL without /v1), such as /tokenize.
            body: The JSON object to post; None for a GET request.
            limit: Largest size of a reply in bytes.

        Raises:
            ServerError: There is no reply, or it is late, too long, or not a JSON object.
        """
        import httpx2

        begun = False
        address = address_of(self.url, endpoint)
        content = None if body is None else json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(
                    "GET" if content is None else "POST", address, content=content
                ) as reply,
            ):
                begun = True
                good = reply.status_code == 200
                read = await self._read(reply, limit if good else ERROR_BYTES, whole=good)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise self._late(begun) from error
        except httpx2.InvalidURL as error:
            raise ServerError(
                f"vlm.url {self.shown} is not a valid address ({error}): correct it."
            ) from error
        except httpx2.HTTPError as error:
            raise self._broken(error, begun) from error
        if not good:
            raise self._refused(reply, read)
        return self._object(reply, read)

    async def _read(self, reply: Any, limit: int, *, whole: bool) -> bytes:
        """Return a body; unless `whole`, only its first `limit` bytes."""
        encoding = reply.headers.get("content-encoding", "identity")
        if whole and encoding.strip().lower() not in ("", "identity"):
            raise ServerError(
                f"{self.shown} sent a reply in the encoding {quoted(encoding)}, which was not "
                "asked for: turn compression off in the server, or in the proxy before it."
            )
        read = bytearray()
        async for chunk in reply.aiter_raw():
            read += chunk
            if len(read) > limit:
                if not whole:
                    break
                raise ServerError(
                    f"{self.shown} sent more than {limit:,} bytes as one reply, which is too long "
                    "for an answer: check that vlm.url is the right server, and see its log."
                )
        return bytes(read[:limit])

    @property
    def shown(self) -> str:
        """The server's URL, without secrets."""
        return without_secrets(self.url)

    def _late(self, begun: bool) -> ServerError:
        sent = " (its reply did not end)" if begun else ""
        return ServerError(
            f"{self._silent} within {self._timeout_s:g} s{sent}: see its log; raise vlm.timeout_s, "
            "or lower vlm.concurrency.",
            passing=not begun,
        )

    def _broken(self, error: Exception, begun: bool) -> ServerError:
        """Return the error for a connection that could not be made, or broke."""
        import httpx2

        why = quoted(str(error) or type(error).__name__)
        if "SSL" in why or "certificate" in why.lower():
            return ServerError(
                f"{self.shown}: no secure connection ({why}): correct http or https in vlm.url, or "
                "name the server's certificate in SSL_CERT_FILE."
            )
        if isinstance(error, httpx2.ProxyError):
            return ServerError(
                f"{self.shown} cannot be reached through the proxy ({why}): correct HTTP_PROXY and "
                "HTTPS_PROXY, or name the server in NO_PROXY.",
                passing=True,
            )
        if isinstance(error, httpx2.ConnectError):
            return ServerError(
                f"{self._silent} ({why}). Start the server, or correct vlm.url.",
                passing=True,
            )
        place = "in the middle of its reply" if begun else "without an HTTP reply"
        return ServerError(
            f"{self.shown} ended the connection {place} ({why}): see the server's log; the "
            "answers so far are stored.",
            passing=True,
        )

    def _refused(self, reply: Any, read: bytes) -> ServerError:
        """Return the error for a status that is not 200, quoting the server."""
        status: int = reply.status_code
        said = words_of(read) or quoted(reply.reason_phrase) or "no reason given"
        if 300 <= status < 400:
            place = quoted(reply.headers.get("location", "")) or "nowhere"
            return ServerError(
                f"{self.shown} redirects to {place} (status {status}), which is not followed: if "
                "that is the right server, set vlm.url to it.",
                status,
            )
        passing = status in PASSING and "insufficient_quota" not in said
        wait = _seconds(reply.headers.get("retry-after", ""))
        advice = advice_for(status, said, passing=passing, key=KEY_VARIABLE)
        text = f"{self._silent}: status {status} ({said}): {advice}."
        return ServerError(text, status, passing=passing, wait=wait)

    def _object(self, reply: Any, read: bytes) -> dict[str, Any]:
        kind = quoted(reply.headers.get("content-type", "").partition(";")[0]) or "no content type"
        advice = "set vlm.url to the base URL of an OpenAI-compatible server, which ends in /v1"
        if not read.strip():
            raise ServerError(f"{self.shown} sent an empty reply: {advice}.")
        if read.lstrip()[:1] not in (b"{", b"["):
            raise ServerError(
                f"{self.shown} sent {kind} instead of JSON ({words_of(read)}): {advice}."
            )
        try:
            found = parse_json(read, f"a reply of {self.shown}", "see the server's log")
        except UserError as error:
            raise ServerError(without_secrets(str(error))) from error
        if not isinstance(found, dict):
            raise ServerError(f"{self.shown} sent a reply that is not a JSON object: {advice}.")
        if found.get("error") or found.get("object") == "error":
            said = words_of(read)
            advice = advice_for(200, said, passing=False, key=KEY_VARIABLE)
            raise ServerError(f"{self._silent}: it sent an error ({said}): {advice}.", 200)
        return found


def address_of(url: str, endpoint: str) -> str:
    """Return the address of an endpoint (see `Server.ask`), given the server's base URL."""
    parts = urlsplit(url)
    base = parts.path.rstrip("/")
    if endpoint.startswith("/"):
        base, endpoint = base.removesuffix("/v1"), endpoint[1:]
    return parts._replace(path=f"{base}/{endpoint}").geturl()


def _seconds(text: str) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date; None if neither."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
