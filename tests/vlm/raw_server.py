"""A server on loopback that sends any bytes that a test wants; it does not check HTTP.

Paths outside /v1 do not exist.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Bytes = bytes | Iterable[bytes]
"""A reply, whole or in pieces; a generator can wait between them."""


def http(
    body: bytes, status: int = 200, *, kind: str = "application/json", **headers: str
) -> bytes:
    """Return a reply; headers are written with - for _."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


@dataclass
class Raw:
    """What a server sends, and what it was sent.

    reply: Gives the reply to a request, from the request's path.
    """

    reply: Callable[[str], Bytes]
    url: str = ""
    seen: list[bytes] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [request.split(b" ", 2)[1].decode() for request in self.seen]


@contextmanager
def raw_server(reply: Callable[[str], Bytes] = lambda _path: b"") -> Iterator[Raw]:
    """Serve until the block ends."""
    raw = Raw(reply)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        raw.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread = threading.Thread(target=_accept, args=(listening, raw), daemon=True)
        thread.start()
        try:
            yield raw
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listening: socket.socket, raw: Raw) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection, raw), daemon=True).start()


def _serve(connection: socket.socket, raw: Raw) -> None:
    with connection, suppress(OSError):
        connection.settimeout(20)
        request = _request(connection)
        if not request:
            return
        path = request.split(b" ", 2)[1].decode()
        if path.startswith("/") and not path.startswith("/v1/"):
            connection.sendall(http(b'{"detail": "Not Found"}', 404))
            return
        raw.seen.append(request)
        reply = raw.reply(path)
        for piece in [reply] if isinstance(reply, bytes) else reply:
            connection.sendall(piece)
        # Closing with unread bytes resets the connection: the client might lose the reply.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


def _request(connection: socket.socket) -> bytes:
    read = b""
    while b"\r\n\r\n" not in read:
        piece = connection.recv(65_536)
        if not piece:
            return b""
        read += piece
    head, _, body = read.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while length and len(body) < int(length[1]):
        piece = connection.recv(65_536)
        if not piece:
            break
        body += piece
    return head + b"\r\n\r\n" + body
