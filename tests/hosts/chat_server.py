"""A chat server on loopback that records its requests, and this project's servers in threads."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from select import select
from typing import Any

from fastapi import FastAPI

from lever_plus.hosts.serve.serving import listening, server_of

EVENTS = [f"data: {said}\n\n".encode() for said in ('{"delta": 0}', '{"delta": 1}', "[DONE]")]


class Many(ThreadingHTTPServer):
    """Lets many connect at once."""

    request_queue_size = 128


class Upstream:
    """What it answers with, and what it was asked.

    Attributes:
        status: Of every reply.
        reply: Its body.
        headers: More headers of it.
        how: "whole"; "stream" (events, each after `go_on` is released once more); "endless" (the
            first event again and again); "silent" (nothing until `go_on` is released); "broken"
            (half of the reply).
        bodies: What was posted.
        seen: Headers of the requests.
        gone: Set when a client has hung up on it.
    """

    def __init__(self) -> None:
        """Start with normal answers, and without requests."""
        self.status, self.how = 200, "whole"
        self.reply = json.dumps({"choices": [{"message": {"content": "red"}}]}).encode()
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.seen: list[dict[str, str]] = []
        self.go_on = threading.Semaphore(0)
        self.gone = threading.Event()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The last chat that came."""
        found: list[dict[str, Any]] = json.loads(self.bodies[-1])["messages"]
        return found


@contextmanager
def answering(upstream: Upstream) -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            upstream.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def do_GET(self) -> None:
            upstream.seen.append(dict(self.headers))
            if upstream.how == "silent":
                self.wait()
            stream = upstream.how in ("stream", "endless")
            self.send_response(upstream.status)
            kind = "text/event-stream; charset=utf-8" if stream else "application/json"
            self.send_header("Content-Type", kind)
            if not stream:
                self.send_header("Content-Length", str(len(upstream.reply)))
            for name, value in upstream.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if stream:
                self.stream()
            else:
                half = len(upstream.reply) // 2 if upstream.how == "broken" else None
                self.wfile.write(upstream.reply[:half])

        def wait(self) -> None:
            while not upstream.go_on.acquire(timeout=0.05):
                if select([self.connection], [], [], 0)[0]:  # nothing comes, so it is the end
                    upstream.gone.set()
                    return

        def stream(self) -> None:
            endless = upstream.how == "endless"
            for event in cycle(EVENTS[:1]) if endless else EVENTS:
                if not endless:
                    upstream.go_on.acquire()
                try:
                    self.wfile.write(event)
                except OSError:
                    upstream.gone.set()
                    return

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = Many(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        for _ in range(100):
            upstream.go_on.release()
        server.shutdown()
        server.server_close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve one of this project's applications with the real server; yield its address."""
    with listening("127.0.0.1", 0) as listener:
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
