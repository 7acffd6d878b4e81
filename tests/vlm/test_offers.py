"""The client asks a server what it offers, and uses that only if it gives the same values."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.vlm.backends import canary
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.backends.likelihoods import ECHO, ECHOES
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from tiny_world import Folders, World
from vlm.protocol_server import LONGEST, OFFERS, VERSION, Vlm, serve
from vlm.test_server import client

WAYS = ("logprob_token_ids", "logit_bias", "allowed_token_ids")


@pytest.fixture(scope="module")
def local(folders: Folders, params: Params) -> HuggingFaceVlm:
    settings = params.vlm.model_copy(update={"max_new_tokens": 3})
    return HuggingFaceVlm(str(folders.vlm), settings)


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    """Sixteen prompts of up to two demonstrations; the answers of every other one are longer."""
    pool, queries = world.splits["train"][:4], world.splits["test"][:4]
    return [
        Request((pool[n], pool[3])[:shot], query.query, (query.answer, f"{query.answer} a")[n % 2])
        for query in queries
        for shot in (1, 2)
        for n in (0, 1)
    ]


class Served:
    """A server and what it was asked; clients of it, which share nothing."""

    def __init__(self, vlm: Vlm, url: str) -> None:
        """Keep both."""
        self.vlm, self.url = vlm, url

    def client(self, **changes: object) -> OpenAiVlm:
        return client(self.url, **changes)

    def chats(self, *fields: str) -> list[dict[str, Any]]:
        """Return the chats that were asked for with all of some fields."""
        return [body for body in self.vlm.bodies if all(body.get(name) for name in fields)]


@pytest.fixture
def served(local: HuggingFaceVlm) -> Any:
    @contextmanager
    def run(*offers: str, echoes: bool = True, gateway: int = 0) -> Iterator[Served]:
        vlm = Vlm(local.model, local.processor, echoes=echoes, offers=offers, gateway=gateway)
        with serve(vlm) as url:
            yield Served(vlm, url)

    return run


@pytest.mark.parametrize(("gateway", "version"), [(1, VERSION), (-1, None)])
def test_a_gateway_that_keeps_paths_to_itself_is_not_waited_for(
    gateway: int, version: str | None, served: Any, requests: list[Request]
) -> None:
    """A gateway whose server was only starting is asked again."""
    with served("version", gateway=gateway) as server:
        vlm = server.client(patience_s=600.0)
        begun = time.monotonic()
        assert vlm.answers(requests[:1])
        assert time.monotonic() - begun < 60
        assert (f"{version}" in str(vlm.identity["revision"])) is (version is not None)


@pytest.mark.parametrize("way", WAYS)
def test_the_way_that_a_server_offers_gives_the_likelihoods_of_the_local_model(
    way: str, served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    with served("version", "tokenize", way) as server:
        vlm = server.client()
        found = vlm.log_likelihoods(requests)
        echoed = len(server.vlm.bodies) - len(server.chats("logprobs"))
    assert vlm.usage.likelihoods == way
    assert f"likelihoods by {way}" in vlm.recorded("log_likelihood")["generation"]
    np.testing.assert_allclose(found, local.log_likelihoods(requests), atol=1e-4)
    assert echoed <= 10  # to find out, once


def test_the_cheapest_of_several_ways_is_taken(served: Any, requests: list[Request]) -> None:
    with served(*OFFERS) as server:
        vlm = server.client()
        vlm.log_likelihoods(requests)
    assert vlm.usage.likelihoods == WAYS[0]


def test_without_ways_to_ask_for_a_token_prompts_are_echoed(
    served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    wanted = local.log_likelihoods(requests)
    for offers, way, echoes in ((("version", "tokenize"), ECHO, 1), ((), ECHOES, 2)):
        with served(*offers) as server:
            vlm = server.client()
            np.testing.assert_allclose(vlm.log_likelihoods(requests), wanted, atol=1e-4)
            before = len(server.vlm.bodies)
            vlm.log_likelihoods(requests)
            assert len(server.vlm.bodies) - before == echoes * len(requests)
        assert vlm.usage.likelihoods == way


def test_a_way_that_gives_other_values_is_not_used(
    served: Any,
    local: HuggingFaceVlm,
    requests: list[Request],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For example, if a server reports probabilities after the bias that forced a token."""
    with served("version", "tokenize", "logit_bias", "processed") as server:
        vlm = server.client()
        found = vlm.log_likelihoods(requests)
    assert vlm.usage.likelihoods == ECHO
    np.testing.assert_allclose(found, local.log_likelihoods(requests), atol=1e-4)
    assert "likelihoods by logit_bias differ from another way's" in caplog.text


def test_a_way_that_nothing_can_be_compared_with_is_refused(
    served: Any, requests: list[Request]
) -> None:
    with (
        served("version", "tokenize", "logit_bias", echoes=False) as server,
        pytest.raises(UserError, match="does not echo the log-probabilities of its prompt"),
    ):
        server.client().log_likelihoods(requests)
    with served("version", "tokenize", "logit_bias", "allowed_token_ids", echoes=False) as server:
        assert len(server.client().log_likelihoods(requests)) == len(requests)


def test_answers_after_one_prompt_share_requests(
    served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    answers = [request.answer or "" for request in requests]
    words = list(dict.fromkeys(word for answer in answers for word in answer.split()))[:4]
    texts = [*words, f"{words[0]} {words[1]}", f"{words[0]} {words[2]}"]
    several = [requests[0]._replace(answer=text) for text in texts]
    with served(*OFFERS) as server:
        vlm = server.client()
        vlm.log_likelihoods(requests)
        before = len(server.vlm.bodies)
        found = vlm.log_likelihoods(several)
        assert len(server.vlm.bodies) - before == 2  # the first tokens, and those after words[0]
    np.testing.assert_allclose(found, local.log_likelihoods(several), atol=1e-4)


def test_tokens_are_not_asked_for_after_a_prompt_that_is_not_theirs(
    served: Any, local: HuggingFaceVlm, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a server does not count the prompt and the tokens so far, prompts are echoed instead."""
    with served(*OFFERS) as server:
        vlm = server.client()
        vlm.log_likelihoods(requests)
        usage = Vlm._usage

        def longer(self: Vlm, ids: tuple[int, ...], body: dict[str, Any]) -> dict[str, Any]:
            more = int(bool(body.get("continue_final_message")))
            counted = usage(self, ids, body)
            return {**counted, "prompt_tokens": counted["prompt_tokens"] + more}

        monkeypatch.setattr(Vlm, "_usage", longer)
        before = len(server.chats("prompt_logprobs")), len(server.vlm.bodies)
        found = vlm.log_likelihoods(requests)
        echoed = [b for b in server.vlm.bodies[before[1] :] if "prompt_logprobs" in b]
    assert len(echoed) == len(requests)  # two for each answer of two tokens
    np.testing.assert_allclose(found, local.log_likelihoods(requests), atol=1e-4)


def sent(bodies: list[dict[str, Any]]) -> int:
    return sum(json.dumps(body).count("base64,") for body in bodies)


def test_an_image_is_sent_once_to_a_server_that_keeps_it(
    served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    wanted = local.answers(requests)
    with served("version", "uuid") as server:
        vlm = server.client(concurrency=1)
        assert vlm.answers(requests) == wanted
        before = len(server.vlm.bodies)
        assert vlm.answers(requests) == wanted
        assert sent(server.vlm.bodies[before:]) == 0
        server.vlm.images.clear()
        assert vlm.answers(requests) == wanted  # what it lost is sent again
        assert sent(server.vlm.bodies[before:]) > 0


@pytest.mark.parametrize("offers", [("version",), ("uuid",)])
def test_other_servers_are_sent_every_image(
    offers: tuple[str, ...], served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    with served(*offers) as server:
        assert server.client().answers(requests) == local.answers(requests)
        images = sum(len(request.images) for request in requests)
        assert sent(server.vlm.bodies) >= images
        assert "uuid" not in json.dumps(server.vlm.bodies[-len(requests) :])


def test_a_server_that_answers_without_the_image_is_sent_every_image(
    served: Any, local: HuggingFaceVlm, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would give any answer about an image that it has never seen."""
    read = Vlm._url
    blank = "data:image/png;base64,"

    def any_image(self: Vlm, part: dict[str, Any], index: int) -> str:
        if part["image_url"] is None:
            return next(iter(self.images.values()))
        self.images.setdefault(blank, part["image_url"]["url"])
        return read(self, part, index)

    monkeypatch.setattr(Vlm, "_url", any_image)
    with served("version") as server:
        assert server.client().answers(requests) == local.answers(requests)


def test_the_identity_is_what_a_server_tells(
    served: Any, requests: list[Request], tmp_path: Path
) -> None:
    store = Store(tmp_path / "answers.sqlite")
    with served("version") as server:
        one = StoredVlm(server.client(), store)
        answers = one.answers(requests[:2])
        told = f"r; server {VERSION}, fingerprint {server.vlm.fingerprint}, max_model_len {LONGEST}"
        assert one.identity["revision"] == told
        again = StoredVlm(server.client(), store)
        assert again.answers(requests[:2]) == answers
        assert again.usage.hits == 2
        server.vlm.fingerprint = "vllm-1.2.4-0a1b"
        other = StoredVlm(server.client(), store)
        other.answers(requests[:2])
        assert other.usage.hits == 0
    with served() as server:
        assert StoredVlm(server.client(), store).identity["revision"] == "r"


def test_stored_answers_are_there_while_the_server_is_down(
    served: Any, requests: list[Request], tmp_path: Path
) -> None:
    store = Store(tmp_path / "answers.sqlite")
    with served("version") as server:
        one = StoredVlm(server.client(), store)
        answers, url = one.answers(requests[:2]), server.url
    later = StoredVlm(client(url), store)
    assert later.answers(requests[:2]) == answers
    assert later.identity == one.identity
    with pytest.raises(UserError, match="Start the server"):
        StoredVlm(client(url, patience_s=0.0), store).answers(requests[:3])


def test_a_server_that_comes_back_as_another_is_not_mixed_with_what_is_stored(
    served: Any, requests: list[Request], tmp_path: Path
) -> None:
    store = Store(tmp_path / "answers.sqlite")
    with served("version") as server:
        StoredVlm(server.client(), store).answers(requests[:2])
        server.vlm.fingerprint = "vllm-1.2.4-0a1b"
        backend = server.client()
        backend.params = backend.params.model_copy(update={"url": "http://127.0.0.1:9/v1"})
        down = StoredVlm(backend, store)
        down.answers(requests[:2])
        backend.params = backend.params.model_copy(update={"url": server.url})
        with pytest.raises(UserError, match=r"was down when this run began.*1\.2\.4.*run again"):
            down.answers(requests[:3])


def test_a_server_that_is_replaced_in_mid_run_is_refused(
    served: Any, requests: list[Request], tmp_path: Path
) -> None:
    with served("version") as server:
        vlm = StoredVlm(server.client(), Store(tmp_path / "answers.sqlite"))
        vlm.answers(requests[:2])
        server.vlm.fingerprint = "vllm-1.2.4-0a1b"
        with pytest.raises(UserError, match=r"fingerprint was .*1\.2\.3.*is vllm-1\.2\.4.* now"):
            vlm.answers(requests[:4])


def test_thinking_is_turned_off_where_that_can_be(
    served: Any, local: HuggingFaceVlm, requests: list[Request]
) -> None:
    with served("version", "tokenize", "thinking") as server:
        vlm = server.client()
        assert vlm.answers(requests[:2]) == local.answers(requests[:2])
        assert "thinking off" in vlm.identity["revision"]
    with served("version", "tokenize") as server:
        vlm = server.client()
        vlm.answers(requests[:2])
        assert "thinking" not in vlm.identity["revision"]
        assert server.chats("chat_template_kwargs") == []


def test_cached_tokens_are_counted_as_saved(served: Any, requests: list[Request]) -> None:
    for offers in (("version", "details"), ("version", "metrics")):
        with served(*offers) as server:
            vlm = server.client(concurrency=1)
            vlm.answers(requests)
            assert 0 < vlm.usage.tokens_run < vlm.usage.tokens_whole
            first = vlm.usage.saved
            vlm.answers(requests)
            assert vlm.usage.saved > first
            lengths = [body for body in server.vlm.bodies if body["max_tokens"] == 3]
            assert len(lengths) == 2 * len(requests)
            usage = f"{vlm.usage.saved:.0%} of the tokens saved"
            vlm.usage.requests = 1
            assert usage in vlm.usage.describe()


def test_a_cache_that_is_never_hit_is_said_once(
    served: Any,
    requests: list[Request],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lever_plus.vlm.backends.openai.MANY", len(requests))
    with served("version", "details") as server:
        server.client().log_likelihoods(requests)
        assert "likelihoods are echoed, and vLLM does not use it for that" in caplog.text
        caplog.clear()
        server.client(concurrency=1).answers(requests)
        assert caplog.text == ""
        monkeypatch.setattr(Vlm, "_usage", lambda _self, ids, _body: _no_hit(len(ids)))
        vlm = server.client()
        for _ in range(2):
            vlm.answers(requests)
    assert caplog.text.count("came from the server's prefix cache: check that") == 1


def _no_hit(length: int) -> dict[str, Any]:
    return {"prompt_tokens": length, "prompt_tokens_details": {"cached_tokens": 0}}


def test_answers_that_depend_on_the_state_are_marked_or_refused(
    served: Any,
    requests: list[Request],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canary, "ONE_OF", 4)
    with served("version", "moods") as server:
        store = Store(tmp_path / "answers.sqlite")
        StoredVlm(server.client(canary="mark"), store).answers(requests)
        (row,) = store.statistics()
        assert row.identity["generation"].endswith("depending on the server's state")
        assert "4 of 4 requests got other answers" in caplog.text
        with pytest.raises(UserError, match=r"4 of 4 requests.*set vlm\.canary to mark"):
            server.client(canary="refuse").answers(requests)
        before = len(server.vlm.bodies)
        server.client(canary="off").answers(requests)
        assert len(server.chats("cache_salt")) == 2 * 3 * 4
        assert len(server.vlm.bodies) - before < 2 * len(requests)


def test_a_server_that_gives_the_same_whatever_was_asked_before_is_not_marked(
    served: Any, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary, "ONE_OF", 4)
    with served(*OFFERS) as server:
        vlm = server.client(canary="refuse")
        for _ in range(2):
            vlm.answers(requests)
            vlm.log_likelihoods(requests)
        salts = [body["cache_salt"] for body in server.chats("cache_salt")]
    assert len(set(salts)) == 2  # once for answers, once for likelihoods
    assert vlm.recorded("answer") == vlm.identity


def test_few_requests_find_out_nothing_more(served: Any, requests: list[Request]) -> None:
    with served(*OFFERS) as server:
        vlm = server.client(canary="mark")
        vlm.answers(requests[:2])
        assert len(server.vlm.bodies) == 3  # one asks for the fingerprint
    with served() as server:
        server.client(canary="mark").answers(requests)
        assert len(server.vlm.bodies) == len(requests)


@pytest.mark.parametrize(
    ("count", "tried"), [(0, 0), (59, 0), (60, 2), (600, 20), (1500, 50), (20_000, 50)]
)
def test_a_tenth_of_a_run_is_asked_again_at_most(count: int, tried: int) -> None:
    numbers = canary.chosen(count)
    assert len(set(numbers)) == len(numbers) == tried
    assert all(0 <= number < count for number in numbers)
    assert 3 * tried <= count / 10
