"""What a real vLLM refuses is reported in its own words, with what to do about it."""

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import AsyncMock

import pytest

from lever_plus.errors import UserError
from lever_plus.vlm.backends.client import KEY_VARIABLE
from lever_plus.vlm.backends.fitting import Fitting
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Asked
from vllm.house_requests import client
from vllm.real_server import IMAGES, LENGTH, NAME, RealServer

pytestmark = pytest.mark.vllm
KEY = "sk-0nly-f0r-this-test"
TOO_MANY = (
    rf"At most {IMAGES} image\(s\) may be provided in one prompt.*an image for each demonstration "
    r"and one for the query: allow that many \(vLLM: --limit-mm-per-prompt"
)
QUEUE = 2
"""Requests that the guarded server lets wait; it runs one at a time."""


@pytest.fixture(scope="module")
def guarded(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that asks for a key, and is soon busy."""
    flags = ("--max-num-queued-reqs", str(QUEUE), "--max-num-seqs", "1")
    server = RealServer(vllm_python, tmp_path_factory.mktemp("guarded"), *flags, key=KEY)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def most(prompts: list[Asked]) -> Request:
    """A prompt with four demonstrations."""
    prompt = prompts[4]
    assert len(prompt.demonstrations) == 4
    return Request(prompt.demonstrations, prompt.example.query)


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not look at sizes before it asks."""
    monkeypatch.setattr(Fitting, "check", AsyncMock())


def with_images(request: Request, images: int) -> Request:
    shown = request.demonstrations
    return request._replace(demonstrations=tuple(shown[n % 4] for n in range(images - 1)))


def with_tokens(real: RealServer, request: Request, tokens: int) -> Request:
    """Return a request whose question is drawn out until its prompt has so many tokens."""
    body = {"model": NAME, "messages": client(real.url).messages(request)}
    more = tokens - int(real.ask("tokenize", body)["count"])
    question = " ".join([request.query.question, *["color"] * more])
    return request._replace(query=replace(request.query, question=question))


def test_too_many_images_are_seen_before_any_prompt_is_asked(
    vllm_server: str, most: Request
) -> None:
    assert client(vllm_server).answers([with_images(most, IMAGES)])
    answered: list[int] = []
    with pytest.raises(UserError, match=TOO_MANY):
        client(vllm_server).answers(
            [most] * 9 + [with_images(most, IMAGES + 1)], lambda i, _: answered.extend(i)
        )
    assert answered == []


@pytest.mark.usefixtures("unseen")
def test_too_many_images(vllm_server: str, most: Request) -> None:
    with pytest.raises(UserError, match=TOO_MANY):
        client(vllm_server).answers([with_images(most, IMAGES + 1)])


def test_a_prompt_that_is_too_long_is_seen_before_any_is_asked(
    real: RealServer, most: Request
) -> None:
    """It is too long by one token: an answer needs room, too, and would silently get less."""
    fits, longer = (with_tokens(real, most, LENGTH - n) for n in (1, 0))
    assert client(real.url).answers([fits])
    for request, room, count in ((longer, 1, LENGTH), (fits, 2, LENGTH - 1)):
        with pytest.raises(
            UserError,
            match=rf"allows at most {LENGTH} tokens.*has {count}, and an answer up to {room}"
            ": allow longer prompts",
        ):
            client(real.url, max_new_tokens=room).answers([most, request])


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (LENGTH + 1, "maximum context length"),
        (LENGTH, "max_tokens must be at least 1, got 0"),
    ],
)
def test_a_prompt_that_is_too_long(tokens: int, said: str, real: RealServer, most: Request) -> None:
    with pytest.raises(UserError, match=rf"status 400 \(.*{said}.*\): allow longer prompts"):
        client(real.url).answers([with_tokens(real, most, tokens)])


def test_an_unknown_model_and_a_wrong_address(real: RealServer, most: Request) -> None:
    with pytest.raises(
        UserError,
        match=r"The model `nope` does not exist.*correct vlm.model.*offers tiny, not nope",
    ):
        client(real.url, model="nope").answers([most])
    with pytest.raises(
        UserError, match=r"status 404 \(Not Found\).*vlm.url, which usually ends in /v1"
    ):
        client(real.address).answers([most])


@pytest.mark.parametrize("key", ["", "sk-an0ther-key"])
def test_a_wrong_key(
    key: str, guarded: RealServer, most: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(
        UserError, match=rf"status 401 \(Unauthorized\): put a key .* variable {KEY_VARIABLE}"
    ) as caught:
        client(guarded.url).answers([most])
    assert not key or key not in str(caught.value)


def test_a_busy_server(
    guarded: RealServer,
    local: HuggingFaceVlm,
    prompts: list[Asked],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With patience everything is answered; without, its own words say what is wrong."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    requests = [Request(p.demonstrations, p.example.query) for p in prompts[:100]]
    with pytest.raises(UserError, match=r"status 503 \(.*busy.*\): lower vlm.concurrency"):
        client(guarded.url, concurrency=64, patience_s=0.0).answers(requests)
    found = client(guarded.url, concurrency=16).answers(requests)
    assert [text.strip() for text in found] == [text.strip() for text in local.answers(requests)]
