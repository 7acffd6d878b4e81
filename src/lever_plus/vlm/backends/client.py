"""The HTTP client for a server: its key, its certificates and its proxy."""

import os
from typing import Any, Final
from urllib.parse import urlsplit

from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback
from lever_plus.files.secrets import without_secrets
from lever_plus.vlm.backends.words import quoted

KEY_VARIABLE: Final = "OPENAI_API_KEY"
"""The environment variable of the server's key."""
EVERYWHERE: Final = ("0.0.0.0", "::")
"""Addresses that mean this machine although they are not loopback addresses."""


def open_client(url: str, connections: int, connect_s: float) -> Any:
    """Return a client, which is an asynchronous context; nothing is asked yet.

    Args:
        url: Base URL of the server.
        connections: Largest number of requests at once.
        connect_s: Longest time until a connection is made, in seconds; the client limits no other
            time.

    Raises:
        UserError: A package is missing, or the key, the certificates or the proxies in the
            environment variables can't be used.
    """
    with needs("openai", "vlm.kind: openai", "set it to huggingface"):
        import httpx2

    # Connections are not reused: one might hold the rest of an earlier reply.
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=0)
    parts = urlsplit(url)
    here = is_loopback(parts.hostname) or parts.hostname in EVERYWHERE
    secure = parts.scheme == "https"
    headers = _headers()
    try:
        return httpx2.AsyncClient(
            headers=headers,
            limits=limits,
            timeout=httpx2.Timeout(None, connect=connect_s),
            # With an explicit transport, the proxies of the environment are not used.
            transport=httpx2.AsyncHTTPTransport(secure, limits=limits) if here else None,
        )
    except OSError as error:  # errors of ssl are OSErrors
        file = os.environ.get("SSL_CERT_FILE")
        which = f"SSL_CERT_FILE={file}" if file else "no SSL_CERT_FILE is set"
        raise UserError(
            f"{without_secrets(url)} cannot be asked, because this machine's certificates "
            f"can't be read ({quoted(str(error))}; {which}): set "
            "SSL_CERT_FILE to a file of certificates, or unset it."
        ) from error
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        why = quoted(str(error)).partition(". ")[0]
        raise UserError(
            f"{without_secrets(url)} cannot be asked through the proxy of the environment ({why}): "
            "correct HTTP_PROXY, HTTPS_PROXY and ALL_PROXY (http://host:port), or name the server "
            "in NO_PROXY."
        ) from error


def _headers() -> dict[str, str]:
    """Return the headers of all requests: no compression, no reused connection, the key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE} has a character that no key has: set it again.")
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Type": "application/json",
        "User-Agent": "lever-plus",
    }
    return {**headers, "Authorization": f"Bearer {key}"} if key else headers
