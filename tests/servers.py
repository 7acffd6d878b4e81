"""Servers that tests start on loopback: a free port, and waiting until one answers."""

import socket
import subprocess
import time
import urllib.request
from pathlib import Path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_healthy(
    address: str,
    log: Path | None = None,
    seconds: float = 180,
    process: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Return when a server answers at /health; fail with the end of its log if it never does.

    Args:
        address: Such as http://127.0.0.1:8000.
        log: What it has said.
        seconds: How long it may take.
        process: The server's process: there is no waiting after its end.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.25)
    said = log.read_text()[-2000:] if log else ""
    raise AssertionError(f"{address} did not answer within {seconds} s, or ended: {said}")
