"""Clients wait for servers that fail for a while; several servers share the work."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.vlm.backends import servers
from lever_plus.vlm.backends.exchange import ServerError
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.backends.servers import Servers, Shares
from lever_plus.vlm.request import Request
from vlm.raw_server import Raw, http, raw_server

MODEL = "m"


def answer(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
    return http(json.dumps({"model": MODEL, "choices": [choice]}).encode())


BUSY = http(b'{"error": {"message": "EngineCore encountered an issue"}}', 500)


def client(*urls: str, **changes: object) -> OpenAiVlm:
    settings = {
        **{"kind": "openai", "url": list(urls), "model": MODEL, "revision": "r"},
        **{"dtype": "float32", "instruction": "", "max_new_tokens": 3, "concurrency": 4},
        **{"timeout_s": 10.0, "patience_s": 20.0, "canary": "off", **changes},
    }
    return OpenAiVlm(OpenAiVlmParams.model_validate(settings))


@pytest.fixture
def two() -> Iterator[list[Raw]]:
    """Two servers, each of which answers with its number."""
    with ExitStack() as stack:
        yield [stack.enter_context(raw_server(lambda _p, n=n: answer(str(n)))) for n in (0, 1)]


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    """Five questions after each of eight demonstrations, neighbours with the same one."""
    path = str(tmp_path / "a.png")
    Image.new("RGB", (2, 2), "red").save(path)
    shown = [Example(path, f"shown {n}", "yes") for n in range(8)]
    return [Request((each,), Query(path, f"asked {n}")) for each in shown for n in range(5)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(servers, "LONGEST_BACKOFF", 0.02)


@pytest.mark.usefixtures("quick")
def test_a_server_that_starts_again_is_waited_for_and_people_are_told(
    two: list[Raw], requests: list[Request], caplog: pytest.LogCaptureFixture
) -> None:
    replies = iter([answer("a"), b"", *[BUSY] * 30])
    two[0].reply = lambda _path: next(replies, answer("a"))
    with caplog.at_level(logging.WARNING):
        assert client(two[0].url, concurrency=1).answers(requests[:3]) == ["a"] * 3
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "EngineCore encountered an issue" in told[0]
    assert told[0].endswith("Trying again for up to 20 s (vlm.patience_s).")
    assert told[1] == f"{two[0].url} answers again."


@pytest.mark.usefixtures("quick")
def test_patience_ends_and_is_named(two: list[Raw], requests: list[Request]) -> None:
    two[0].reply = lambda _path: BUSY
    with pytest.raises(UserError, match=r"Tried \d+ times in 0.2 s \(vlm.patience_s\)\.$"):
        client(two[0].url, patience_s=0.2).answers(requests[:1])
    assert len(two[0].seen) > 3


def test_requests_with_the_same_demonstration_are_asked_of_the_same_server(
    two: list[Raw], requests: list[Request]
) -> None:
    """Here both have the same amount of work; otherwise the one that is done first helps out."""
    urls = [raw.url for raw in two]
    shares = Shares([request.demonstrations[0].question for request in requests], urls)
    taken = [[shares.next(n) for _ in range(5)] for n in (0, 1)]
    for numbers in taken:
        assert len({requests[n].demonstrations[0] for n in numbers if n is not None}) == 1


def test_both_servers_work_and_every_request_is_asked_once(
    two: list[Raw], requests: list[Request]
) -> None:
    found = client(*(raw.url for raw in two)).answers(requests)
    assert Counter(found) == {str(n): len(raw.seen) for n, raw in enumerate(two)}
    assert sum(len(raw.seen) for raw in two) == len(requests)
    assert min(len(raw.seen) for raw in two) >= 1


def test_a_server_that_is_down_hands_its_requests_to_the_other(
    two: list[Raw], requests: list[Request]
) -> None:
    """This happens without waiting."""
    two[0].reply = lambda _path: b""
    assert client(*(raw.url for raw in two)).answers(requests) == ["1"] * len(requests)
    assert 1 <= len(two[0].seen) <= 4 + 1  # as many as were under way when it failed


def test_one_request_looks_whether_a_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(servers.time, "monotonic", lambda: now)
    known = Servers(["http://a/v1", "http://b/v1"], MODEL, timeout_s=1.0)
    one, other = known.each
    assert known.choose([one, other]) is one
    known.failed(one, ServerError("down", passing=True), 1)
    assert known.choose([one, other]) is other
    now += servers.REST_SECONDS
    assert [known.choose([one, other]) for _ in range(3)] == [one, other, other]
    known.answered(one)
    assert [known.choose([one, other]) for _ in range(3)] == [one, one, one]


def test_a_reply_without_an_answer_is_that_of_the_server_that_sent_it(
    two: list[Raw], requests: list[Request]
) -> None:
    two[0].reply = lambda _path: b""
    two[1].reply = lambda _path: http(b'{"choices": []}')
    with pytest.raises(UserError, match=f"^{two[1].url}, reply to 'asked"):
        client(*(raw.url for raw in two)).answers(requests)


def test_a_server_that_is_wrong_is_named_though_others_answer(
    two: list[Raw], requests: list[Request]
) -> None:
    two[0].reply = lambda _path: http(b'{"error": "Unauthorized"}', 401)
    with pytest.raises(UserError, match=rf"^{two[0].url} .*\(Unauthorized\): put a key"):
        client(*(raw.url for raw in two)).answers(requests)


def test_shares_stay_where_they_are_and_are_taken_once() -> None:
    begin = [f"demonstration {n % 40}" for n in range(200)]
    urls = ["http://a/v1", "http://b/v1", "http://c/v1"]

    def homes(urls: list[str]) -> dict[str, str]:
        shares = Shares(begin, urls)
        return {begin[n]: url for url, own in zip(urls, shares._waiting, strict=True) for n in own}

    three, two = homes(urls), homes(urls[:2])
    assert set(three.values()) == set(urls)
    assert all(two[each] == url for each, url in three.items() if url != urls[2])
    shares = Shares(begin, urls)
    taken = [number for number in iter(lambda: shares.next(0), None) if number is not None]
    assert sorted(taken) == list(range(200))
    assert shares.next(1) is None
