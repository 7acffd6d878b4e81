"""What every endpoint of the server asks of a request, and the one form of its errors.

Errors have OpenAI's form, {"error": {"message", "type", "param", "code"}}, so that clients of that
protocol show the sentence.
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
"""In which the whole of a request must have come."""
HEARD_OUT: Final = 4
"""Times the limit that a request may have to be told that it is too large."""
ADVICE: Final = "see docs/guides/serve.md"
_KINDS: Final = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class RequestError(UserError):
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        headers: Of the reply.
    """

    def __init__(self, message: str, status: int = 400, **headers: str) -> None:
        """Keep all of it; a header's `_` is a dash."""
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def error_reply(message: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as clients get it, without keys."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    shown = {"message": without_secrets(message), "type": kind, "param": None, "code": None}
    return JSONResponse({"error": shown}, status, headers)


def own_key() -> str:
    """Return the key that requests must have, "" for none.

    Raises:
        UserError: The environment holds one that no header can have.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE} holds a character that no key has: set it again.")
    return key


class Door:
    """Who may ask: whoever has the key; without one, programs of this machine."""

    def __init__(self, key: str) -> None:
        """Keep the key; "": there is none."""
        self._key = key

    async def __call__(self, request: Request) -> None:
        """Let a request in.

        Raises:
            RequestError: It has not the key. Where there is none: it came under another name than
                this machine's, as those of a page in a browser may.
        """
        if self._key:
            kind, _, given = request.headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._key.encode())
            if kind.lower() != "bearer" or not same:
                raise RequestError(
                    f"this server needs its key: send it as Authorization: Bearer ... (the value "
                    f"of its {KEY_VARIABLE}).",
                    401,
                    WWW_Authenticate="Bearer",
                )
        elif not is_loopback(request.url.hostname):
            raise RequestError(
                "this host is not served: ask under localhost or 127.0.0.1, or start the server "
                f"with {KEY_VARIABLE} set.",
                403,
            )


async def body_of(request: Request, limit: int = REQUEST_BYTES) -> bytes:
    """Return the body of a request: JSON, bounded in time and size.

    Raises:
        RequestError: It is declared as something else, too large, or does not come.
    """
    # A page of another site may send a form or plain text unasked, but not this.
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
                # Who is still sending does not see an answer: some more is read and forgotten.
                elif size > HEARD_OUT * limit:
                    break
    except TimeoutError as error:
        raise RequestError(
            f"the request did not come within {REQUEST_SECONDS:g} s: send it again.", 408
        ) from error
    if size > limit:
        raise RequestError(
            f"the request has more than {limit:,} bytes: send smaller images.",
            413,
            Connection="close",
        )
    return bytes(read)


def client_error(error: UserError) -> JSONResponse:
    """Return what a client sees of an error that is meant for people."""
    if isinstance(error, RequestError):
        return error_reply(str(error), error.status, error.headers)
    return error_reply(str(error), 400)


def described(content: Any) -> str:
    """Return how an error names a body that is no object."""
    return "a list" if isinstance(content, list) else "no object"
