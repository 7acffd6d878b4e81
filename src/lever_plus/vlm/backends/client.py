"""The HTTP client that a server is asked with: its key, its certificates, and which proxy."""

import os
from typing import Any, Final
from urllib.parse import urlsplit

from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback
from lever_plus.files.secrets import without_secrets
from lever_plus.vlm.backends.words import quoted

KEY_VARIABLE: Final = "OPENAI_API_KEY"
EVERYWHERE: Final = ("0.0.0.0", "::")
"""What a server listens on that is asked on this machine."""


def open_client(url: str, connections: int, connect_s: float) -> Any:
    """Return a client, an asynchronous context; nothing is asked yet.

    Args:
        url: Base URL of the server.
        connections: Requests under way at once.
        connect_s: Longest time until a connection is made; nothing else has a limit here.

    Raises:
        UserError: The package is missing, or the key, the certificates or the proxies that the
            environment names can't be used.
    """
    with needs("openai", "vlm.kind: openai", "set it to huggingface"):
        import httpx2

    # A connection that is used again may hold the rest of an earlier reply.
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
            # With a transport of its own, no proxy of the environment is asked.
            transport=httpx2.AsyncHTTPTransport(secure, limits=limits) if here else None,
        )
    except OSError as error:  # ssl's own errors are some
        file = os.environ.get("SSL_CERT_FILE")
        which = f"SSL_CERT_FILE={file}" if file else "no SSL_CERT_FILE is set"
        raise UserError(
            f"{without_secrets(url)} cannot be asked, because the certificates of this machine "
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
    """Return what goes with every request: no compression, no connection kept, the key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY_VARIABLE} holds a character that no key has: set it again.")
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Type": "application/json",
        "User-Agent": "lever-plus",
    }
    return {**headers, "Authorization": f"Bearer {key}"} if key else headers
