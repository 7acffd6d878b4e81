"""A real vLLM that serves the shipped VLM, and the same VLM on this machine."""

import os
from collections.abc import Iterator

import pytest

from lever_plus.config.params import Params
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.scorer import Asked
from vllm.house_requests import OWN_SIDE, asked
from vllm.real_server import PYTHON, RealServer


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The Python of an environment with vLLM."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} names no Python with vLLM: make test-vllm")
    return python


@pytest.fixture(scope="session")
def real(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server; a test that kills it starts it again."""
    server = RealServer(vllm_python, tmp_path_factory.mktemp("vllm"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def vllm_server(real: RealServer) -> str:
    """The base URL of a server."""
    return real.url


@pytest.fixture(scope="session")
def local(params: Params) -> HuggingFaceVlm:
    """What the server serves, on this machine."""
    return HuggingFaceVlm("shipped:vlm", params.vlm)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """500 prompts with 0 to 4 demonstrations, whose images are not resized."""
    return asked(tmp_path_factory.mktemp("own"), queries=100, side=OWN_SIDE)
