"""optuna-dashboard on this machine, with a check where requests come from.

The dashboard has no password and can delete studies. A page of another site that is open in the
same browser could tell it to, or could reach it under a host name that leads to this machine (DNS
rebinding). So every request must name this machine as its host, and a request that changes
something must come from the dashboard's own pages.
"""

import re
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from lever_plus.errors import UserError, needs
from lever_plus.files.addresses import is_loopback

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
IDLE_SECONDS: Final = 60
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]


class Guarded:
    """A WSGI application that answers only requests from this machine's own pages."""

    def __init__(self, app: Application, port: int) -> None:
        """Keep the application and the port that its pages are on."""
        self._app, self._port = app, port

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer, or refuse with status 403."""
        why = refusal(environ, self._port)
        if not why:
            return self._app(environ, start_response)
        said = f"{why}: open http://127.0.0.1:{self._port} on this machine.\n".encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))]
        start_response("403 Forbidden", headers)
        return [said]


def refusal(environ: Environ, port: int) -> str:
    """Return why a request is refused; "" if it is allowed.

    Args:
        environ: The WSGI environment of the request.
        port: The port of the dashboard.
    """
    host = environ.get("HTTP_HOST", "")
    if not _is_own(host, port):
        return "this host is not served"
    came = [environ[name] for name in ("HTTP_ORIGIN", "HTTP_REFERER") if environ.get(name)]
    changes = environ.get("REQUEST_METHOD") not in SAFE
    # A link on another site may lead here, but a request by that site's scripts has an Origin.
    checked = came if changes else came[:1] if environ.get("HTTP_ORIGIN") else []
    if not all(_is_from(address, host) for address in checked) or (changes and not came):
        return "requests from other pages are refused"
    return ""


def _is_own(host: str, port: int) -> bool:
    """Return whether a Host header names this machine and the port."""
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found[1]) and int(found[2] or 80) == port


def _is_from(address: str, host: str) -> bool:
    """Return whether an Origin or a Referer is a page of this host."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.casefold() == host.casefold()


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at once: browsers hold connections open."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Logs no requests, and waits only a limited time for each."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:
        """Write nothing."""


def dashboard_server(storage: Any, host: str, port: int) -> WSGIServer:
    """Return a server of the dashboard that already listens; call `serve_forever` to answer.

    Args:
        storage: Optuna's storage of the studies.
        host: Address to listen on; whatever it is, requests must name this machine as their host.
        port: Port to listen on; 0 for a free one.

    Raises:
        UserError: A package is missing, or the address can't be used.
    """
    with needs("dashboard", "lever-plus study dashboard"):
        from optuna_dashboard import wsgi

    try:
        server = make_server(host, port, _nothing, _Server, _Quiet)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"the dashboard cannot listen on {host}:{port} ({error}): choose another --port or "
            "--host."
        ) from error
    server.set_app(Guarded(wsgi(storage), server.server_port))
    return server


def _nothing(_environ: Environ, _start_response: Any) -> Iterable[bytes]:
    raise AssertionError("set_app comes before the first request")
