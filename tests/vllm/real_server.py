"""A real vLLM on loopback that tests start, kill and start again.

It is a program of an environment of its own (`make test-vllm` makes it), and it is several
processes: an API and its engine. A killed API leaves its engine behind, so whatever ends a server
ends its process group.
"""

import json
import os
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from servers import free_port, wait_until_healthy
from tiny_world import ROOT

PYTHON = "LEVER_PLUS_VLLM"
"""Environment variable: the Python of an environment with vLLM."""
MODEL = ROOT / "src" / "lever_plus" / "house_words" / "models" / "vlm"
NAME = "tiny"
LENGTH = 512
IMAGES = 6
BLOCK = 32
STARTS_WITHIN = 900.0
ENDS_WITHIN = 20.0
QUESTION = {
    "model": NAME,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "color"}]}],
    "max_tokens": 1,
}


class RealServer:
    """vLLM serving the shipped VLM exactly as it is, always on the same port."""

    def __init__(self, python: str, folder: Path, *flags: str, key: str = "") -> None:
        """Keep what starts it.

        Args:
            python: The Python of an environment with vLLM.
            folder: Gets its log.
            flags: More of its command line.
            key: The API key that it asks for.
        """
        self.address = f"http://127.0.0.1:{free_port()}"
        self.url = f"{self.address}/v1"
        self.log = folder / "vllm.log"
        self._key = key
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(MODEL), "--served-model-name", NAME, "--dtype", "float32"),
            *("--max-model-len", str(LENGTH), "--block-size", str(BLOCK), "--enforce-eager"),
            *("--limit-mm-per-prompt", json.dumps({"image": IMAGES})),
            *("--host", "127.0.0.1", "--port", self.address.rpartition(":")[2]),
            *("--enable-prompt-tokens-details", *flags),
        ]

    def start(self) -> None:
        """Start it; returns when it has answered a request.

        A server can say that it is healthy and die of its first batch.
        """
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it without waiting for it."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT / "tests" / "shim"),
            "HF_HUB_OFFLINE": "1",
            # Otherwise it binds itself to one core, even if another process uses that.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **({"VLLM_API_KEY": self._key} if self._key else {}),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return when it has answered a request; fail with the end of its log if it ends."""
        assert self._process is not None
        wait_until_healthy(self.address, self.log, STARTS_WITHIN, self._process)
        self.ask("v1/chat/completions", QUESTION)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return its reply to a request, as JSON."""
        request = urllib.request.Request(
            f"{self.address}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    def kill(self) -> None:
        """End it at once, API and engine."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end; whatever is left after a while is killed."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_WITHIN)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes that are left."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
