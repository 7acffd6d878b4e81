"""A VLM behind an OpenAI-compatible server gives the results of the same VLM on this machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lever_plus.config.params import Params
from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import Query
from lever_plus.errors import UserError
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Request
from tiny_world import Folders, World
from vlm.protocol_server import NAME, Vlm, serve


@pytest.fixture(scope="module")
def local(folders: Folders, params: Params) -> HuggingFaceVlm:
    settings = params.vlm.model_copy(update={"max_new_tokens": 3})
    return HuggingFaceVlm(str(folders.vlm), settings)


@pytest.fixture(scope="module")
def backend(local: HuggingFaceVlm) -> Vlm:
    return Vlm(local.model, local.processor, echoes=True)


@pytest.fixture(scope="module")
def url(backend: Vlm) -> Iterator[str]:
    with serve(backend) as url:
        yield url


def client(url: str, **changes: object) -> OpenAiVlm:
    settings = {
        "kind": "openai",
        "url": url,
        "model": NAME,
        "revision": "r",
        "dtype": "float32",
        "instruction": "",
        "max_new_tokens": 3,
        "concurrency": 4,
        "timeout_s": 60.0,
        "patience_s": 9.0,
        "canary": "off",
        **changes,
    }
    return OpenAiVlm(OpenAiVlmParams.model_validate(settings))


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    pointer, queries = tuple(world.splits["train"][:4]), world.splits["test"][:2]
    return [
        Request(pointer[:shot], query.query, query.answer) for query in queries for shot in range(5)
    ]


def test_answers_are_those_of_the_local_model(
    url: str, backend: Vlm, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    backend.most_active = 0
    assert client(url).answers(requests) == local.answers(requests)
    assert 1 < backend.most_active <= 4  # side by side, and no more than allowed


def test_likelihoods_are_those_of_the_local_model(
    url: str, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    found = client(url).log_likelihoods(requests[:6])
    np.testing.assert_allclose(found, local.log_likelihoods(requests[:6]), atol=1e-4)


def test_a_busy_server_is_asked_again(
    url: str, backend: Vlm, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    backend.failures = 2
    found = client(url, concurrency=1).answers(requests[:2])
    assert found == local.answers(requests[:2])
    assert backend.failures == 0


def test_a_server_that_keeps_failing_is_an_error(
    url: str, backend: Vlm, requests: list[Request]
) -> None:
    backend.failures = 100
    try:
        with pytest.raises(UserError, match=r"did not answer for model tiny-vlm.*busy"):
            client(url, patience_s=0.0).answers(requests[:1])
    finally:
        backend.failures = 0


def test_an_unknown_model_and_a_missing_server_are_named(url: str, requests: list[Request]) -> None:
    with pytest.raises(UserError, match=r"for model other: .*no model other"):
        client(url, model="other").answers(requests[:1])
    with pytest.raises(UserError, match="Start the server"):
        client("http://127.0.0.1:9/v1", patience_s=0.0).answers(requests[:1])


def test_a_server_without_prompt_log_probabilities_is_refused(
    local: HuggingFaceVlm, requests: list[Request]
) -> None:
    silent = Vlm(local.model, local.processor, echoes=False)
    with serve(silent) as url:
        vlm = client(url)
        assert vlm.answers(requests[:1]) == local.answers(requests[:1])
        with pytest.raises(UserError, match="does not echo the log-probabilities of its prompt"):
            vlm.log_likelihoods(requests[:1])


def test_an_unreadable_image_is_named(url: str, world: World, tmp_path: Path) -> None:
    missing = Query(str(tmp_path / "no.png"), world.splits["test"][0].question)
    with pytest.raises(UserError, match=r"no.png cannot be read"):
        client(url).answers([Request((), missing)])


def test_the_identity_changes_with_the_instruction() -> None:
    one, other = (client("http://x/v1", instruction=i) for i in ("", "Briefly."))
    assert one.identity["prompt_hash"] != other.identity["prompt_hash"]
    changed = one.instructed("Briefly.")
    assert (changed.identity, changed.prompt) == (other.identity, other.prompt)
    assert changed.usage is one.usage
    with pytest.raises(UserError, match=r"evaluate\.instructions"):
        one.instructed("<|im_end|>")


@pytest.fixture
def limited(local: HuggingFaceVlm) -> Vlm:
    """It reads no more tokens at once than a test allows."""
    return Vlm(local.model, local.processor, echoes=True, longest=10_000)


def test_what_was_seen_to_fit_is_not_tried_again(limited: Vlm, requests: list[Request]) -> None:
    with serve(limited) as url:
        vlm = client(url)
        assert vlm.answers(requests[:5]) == vlm.answers(requests[:5])
    assert limited.asked == {"/tokenize": 1, "/v1/chat/completions": 10}


def test_a_prompt_that_is_too_long_is_refused_before_any_is_asked(
    limited: Vlm, requests: list[Request]
) -> None:
    """An answer needs room as well, and one that is scored is part of its prompt."""
    shown = len(requests[4].demonstrations)
    with serve(limited) as url:
        count = limited.tokens({"messages": client(url).messages(requests[4])})["count"]
        limited.longest = count + 2
        with pytest.raises(UserError, match=rf"most {count + 2} .*With {shown} d.*has {count},"):
            client(url).answers(requests[:5])
        limited.longest = count + 1
        with pytest.raises(UserError, match=rf"has {count + 1}, and an answer up to 1: allow long"):
            client(url).log_likelihoods(requests[:5])
        assert limited.asked["/v1/chat/completions"] == 0
        limited.longest = count + 3
        assert len(client(url).answers(requests[:5])) == 5
