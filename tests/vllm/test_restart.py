"""If a server is killed in the middle of a run and restarted, no answer is lost or doubled."""

import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked
from vllm.house_requests import client
from vllm.real_server import RealServer

pytestmark = pytest.mark.vllm
KILLED_AFTER = 60
"""Answers after which it is killed: far fewer than are asked for."""


class Reported:
    """Notes what a back end reports as done; after enough of it, kills and restarts the server."""

    def __init__(self, real: RealServer) -> None:
        """Keep the server."""
        self._real = real
        self.numbers: Counter[int] = Counter()
        self._restart = threading.Thread(target=self._start_again)

    def __call__(self, indices: Sequence[int], answers: Sequence[str]) -> None:
        assert len(indices) == len(answers)
        self.numbers.update(indices)
        if len(self.numbers) == KILLED_AFTER:
            self._real.kill()
            self._restart.start()

    def _start_again(self) -> None:
        self._real.start()

    def end(self) -> None:
        """Wait until the server is up again."""
        if self._restart.ident is not None:
            self._restart.join()


def test_every_request_is_answered_once(
    real: RealServer, local: HuggingFaceVlm, prompts: list[Asked]
) -> None:
    requests = [Request(prompt.demonstrations, prompt.example.query) for prompt in prompts]
    reported = Reported(real)
    try:
        found = client(real.url, patience_s=900.0).answers(requests, reported)
    finally:
        reported.end()
    assert len(requests) > 4 * KILLED_AFTER
    assert reported.numbers == Counter(range(len(requests)))
    assert [text.strip() for text in found] == [text.strip() for text in local.answers(requests)]
