"""Servers that tests start on loopback: a free port, and waiting until one answers."""

import socket
import time
import urllib.request
from pathlib import Path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_healthy(address: str, log: Path | None = None, seconds: float = 180) -> None:
    """Return when a server answers at /health; fail with the end of its log if it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.25)
    said = log.read_text()[-2000:] if log else ""
    raise AssertionError(f"{address} did not answer within {seconds} s: {said}")
