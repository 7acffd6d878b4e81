"""Checks that every endpoint of the server makes, and the format of its errors.

Errors have OpenAI's format, {"error": {"message", "type", "param", "code"}}, so that clients of
that protocol show the message.
"""

import asyncio
import hmac
import os
from typing import Any, Final

from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback
from lever_plus.files.secrets import without_secrets

with needs("serve", "lever-plus serve"):
    from fastapi import Request
    from fastapi.responses import JSONResponse

KEY_VARIABLE: Final = "LEVER_PLUS_API_KEY"
REQUEST_BYTES: Final = 32 * 2**20
REQUEST_SECONDS: Final = 60.0
"""Seconds in which a whole request must arrive."""
HEARD_OUT: Final = 4
"""A request that is too large is read up to this many times the limit, so that it gets a reply."""
ADVICE: Final = "see docs/guides/serve.md"
_KINDS: Final = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class RequestError(UserError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        headers: Headers of the reply.
    """

    def __init__(self, message: str, status: int = 400, **headers: str) -> None:
        """Keep message, status and headers; `_` in a header's name becomes a dash."""
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def error_reply(message: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as a reply to a client, without secrets."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    shown = {"message": without_secrets(message), "type": kind, "param": None, "code": None}
    return JSONResponse({"error": shown}, status, headers)


def own_key() -> str:
    """Return the key that requests must have; "" if they need none.

    Raises:
        UserError: The key in the environment has characters that a header can't have.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"{KEY_VARIABLE} has a character that a key can't have: set it to printable ASCII."
        )
    return key


class Door:
    """Decides which requests are let in: those with the key, or, without a key, local programs."""

    def __init__(self, key: str) -> None:
        """Keep the key; "" means that there is none."""
        self._key = key

    async def __call__(self, request: Request) -> None:
        """Let a request in, or refuse it.

        Raises:
            RequestError: The request does not have the key. If there is no key: it does not name
                this machine as its host, as requests from web pages may not.
        """
        if self._key:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._key.encode())
            if kind.lower() != "bearer" or not same:
                raise RequestError(
                    "this server needs a key: send the header Authorization: Bearer ... with the "
                    f"value of the server's {KEY_VARIABLE}.",
                    401,
                    WWW_Authenticate="Bearer",
                )
        elif not is_loopback(request.url.hostname):
            raise RequestError(
                "this host name is not served: use localhost or 127.0.0.1, or start the server "
                f"with {KEY_VARIABLE} set.",
                403,
            )


async def body_of(request: Request, limit: int = REQUEST_BYTES) -> bytes:
    """Return the body of a request: JSON, with limits on time and size.

    Args:
        request: The request.
        limit: Most bytes of the body.

    Raises:
        RequestError: The body is not declared as JSON (status 415), is too large (413), or does not
            arrive in time (408).
    """
    # A page of another site can send forms or plain text without permission, but not JSON.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError("send JSON, with Content-Type: application/json.", 415)
    read, size = bytearray(), 0
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    read += chunk
                # A client that is still sending does not read replies, so some more is read.
                elif size > HEARD_OUT * limit:
                    break
    except TimeoutError as error:
        raise RequestError(
            f"the request did not arrive within {REQUEST_SECONDS:g} s: send it again.", 408
        ) from error
    if size > limit:
        raise RequestError(
            f"the request has more than {limit:,} bytes: send smaller images.",
            413,
            Connection="close",
        )
    return bytes(read)


def client_error(error: UserError) -> JSONResponse:
    """Return an error that is meant for people as a reply to a client."""
    if isinstance(error, RequestError):
        return error_reply(str(error), error.status, error.headers)
    return error_reply(str(error), 400)


def described(content: Any) -> str:
    """Return what an error calls a body that is not a JSON object."""
    return "a list" if isinstance(content, list) else "a single value"
