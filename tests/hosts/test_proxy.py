"""The proxy: chats with the demonstrations of the pipeline's prompt; all else as it came."""

import asyncio
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from typing import Any

import httpx2
import pytest

from hosts.chat_server import EVENTS, Upstream, answering, serving
from hosts.conftest import Asked
from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import Query
from lever_plus.hosts.serve.service import Service
from lever_plus.hosts.serve.serving import make_app
from lever_plus.hosts.serve.upstream import Upstream as Behind
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.backends.turns import chat_turns
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Request
from trained_selector import SHOTS

Chat = list[dict[str, Any]]
WORD = PromptFormat(instruction="Answer in one word.")


@pytest.fixture(scope="module")
def service(trained: LearnedSelector, asked: Asked) -> Service:
    return Service(trained, asked.pool, SHOTS)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def address(service: Service, upstream: Upstream) -> Iterator[str]:
    with (
        answering(upstream) as url,
        serving(make_app(service, Behind(url, timeout_s=20.0))) as address,
    ):
        yield address


def complete(address: str, chat: Any, **fields: object) -> httpx2.Response:
    content = {"model": "m", "messages": chat, **fields}
    return httpx2.post(f"{address}/v1/chat/completions", json=content, timeout=60)


def back_end(instruction: str = "") -> OpenAiVlm:
    """Return the pipeline's own way to a server."""
    return OpenAiVlm(
        OpenAiVlmParams(
            kind="openai",
            url="http://127.0.0.1:9/v1",
            model="m",
            revision="r",
            dtype="-",
            instruction=instruction,
            max_new_tokens=3,
            concurrency=1,
            timeout_s=5.0,
            patience_s=0.0,
            canary="off",
        )
    )


def test_200_unseen_questions_are_sent_on_as_the_pipeline_sends_them(
    address: str, upstream: Upstream, asked: Asked
) -> None:
    vlm = back_end()

    with ThreadPoolExecutor(8) as pool, httpx2.Client(timeout=60) as client:

        def ask(query: Query) -> httpx2.Response:
            content = {"messages": chat_turns([], query)}
            return client.post(f"{address}/v1/chat/completions", json=content)

        replies = [*pool.map(ask, asked.queries)]
    came = {json.dumps(json.loads(body)["messages"]) for body in upstream.bodies}
    for reply, query, chosen in zip(replies, asked.queries, asked.chosen, strict=True):
        assert reply.status_code == 200
        assert reply.content == upstream.reply
        assert reply.headers["X-Lever-Plus-Demonstrations"] == str(SHOTS)
        ids = ", ".join(str(example.question_id) for example in chosen)
        assert reply.headers["X-Lever-Plus-Question-Ids"] == ids
        assert json.dumps(vlm.messages(Request(chosen, query))) in came


def test_all_else_stays_as_it_is_and_a_chat_keeps_its_demonstrations(
    address: str, upstream: Upstream, asked: Asked
) -> None:
    query, chosen = asked.queries[0], asked.chosen[0]
    system = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello!", "odd": {"a": [1, None, 2.50, "ü"]}},
    ]
    question = chat_turns([], query)
    further = [
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": "Are you sure?"}]},
    ]
    fields = {"temperature": 0.30, "max_tokens": 7, "seed": 2**60, "extra": {"x": [None, True]}}
    chat = [*system, *question, *further]
    reply = complete(address, chat, **fields)
    assert reply.headers["X-Lever-Plus-Demonstrations"] == str(SHOTS)
    sent = json.loads(upstream.bodies[-1])
    assert sent.pop("messages") == [*system, *chat_turns(chosen, query), *further]
    assert sent == {"model": "m", **fields}


def test_an_instruction_is_put_after_every_question_once(
    service: Service, upstream: Upstream, asked: Asked
) -> None:
    query, chosen = asked.queries[0], asked.chosen[0]
    expected = back_end(WORD.instruction).messages(Request(chosen, query))
    with (
        answering(upstream) as url,
        serving(make_app(service, Behind(url), prompt=WORD)) as address,
    ):
        for prompt in (PromptFormat(), WORD):
            complete(address, chat_turns([], query, prompt))
            assert upstream.messages == expected


def other_chats(asked: Asked) -> dict[str, tuple[Any, str]]:
    """Return chats that get no demonstrations, and why, by what they are."""
    asking, other = (chat_turns([], query)[0] for query in asked.queries[:2])
    image, text = asking["content"]
    return {
        "text": ([{"role": "user", "content": "What is red?"}], "no image"),
        "parts of text": ([{"role": "user", "content": [text]}], "no image"),
        "two images": ([{"role": "user", "content": [image, image, text]}], "several images"),
        "own demonstrations": (
            [other, {"role": "assistant", "content": "red"}, asking],
            "several images",
        ),
        "no question": ([{"role": "user", "content": [image]}], "an image without a question"),
        "no user": ([{**asking, "role": "system"}], "an image in a turn that is not the user's"),
        "another kind": (
            [{"role": "user", "content": [{"type": "image", "image": "x"}, text]}],
            "an image that is not sent as image_url",
        ),
        "no chat": ("hello", "no list of messages"),
        "nothing": ([], "no list of messages"),
        "odd": ([7, {"role": "user", "content": [7, {"type": []}]}], "no list of messages"),
        "odd parts": ([{"role": "user", "content": [7, {"type": []}, {}]}], "no image"),
    }


def test_a_chat_that_asks_about_no_one_image_is_sent_on_unchanged(
    address: str, upstream: Upstream, asked: Asked
) -> None:
    for name, (chat, why) in other_chats(asked).items():
        content = json.dumps({"messages": chat, "model": "m"}, indent=1).encode()
        reply = httpx2.post(
            f"{address}/v1/chat/completions",
            content=content,
            headers={"Content-Type": "application/json"},
        )
        assert reply.status_code == 200, name
        assert upstream.bodies[-1] == content, name
        assert reply.headers["X-Lever-Plus-Demonstrations"] == "0", name
        assert reply.headers["X-Lever-Plus-Why-None"] == why, name
        assert "X-Lever-Plus-Question-Ids" not in reply.headers, name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", "downloads nothing"),
        ("file:///etc/passwd", "does not open files by name"),
        ("/etc/passwd", "does not open files by name"),
        ("data:image/png;base64,aGFsbG8=", "the image cannot be read"),
        ("data:image/png;base64,@", "is not the data URL of an image"),
        (7, "does not open files by name"),
    ],
)
def test_an_image_that_cannot_be_seen_is_an_error_and_is_not_sent_on(
    url: object, said: str, address: str, upstream: Upstream
) -> None:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    reply = complete(address, [{"role": "user", "content": parts}])
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]
    assert not upstream.bodies


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b'{"messages": NaN}', b'{"a":1,"a":2}'])
def test_a_request_that_is_no_json_object_is_refused(
    content: bytes, address: str, upstream: Upstream
) -> None:
    sent = {"Content-Type": "application/json"}
    reply = httpx2.post(f"{address}/v1/chat/completions", content=content, headers=sent)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert "the request" in reply.json()["error"]["message"]
    assert not upstream.bodies


def test_a_stream_is_passed_on_piece_by_piece(
    address: str, upstream: Upstream, asked: Asked
) -> None:
    upstream.how = "stream"
    content = {"messages": chat_turns([], asked.queries[0]), "stream": True}
    upstream.go_on.release()
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=content) as reply:
        assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["X-Lever-Plus-Demonstrations"] == str(SHOTS)
        pieces = reply.iter_raw()
        for event in EVENTS:  # the next is not sent before this one has come
            assert next(pieces) == event
            upstream.go_on.release()
        assert list(pieces) == []


@pytest.mark.parametrize("how", ["endless", "silent"])
def test_what_a_client_no_longer_waits_for_is_given_up(
    how: str, address: str, upstream: Upstream, asked: Asked
) -> None:
    upstream.how = how
    content = {"messages": chat_turns([], asked.queries[0])}
    with (
        suppress(httpx2.ReadTimeout),
        httpx2.stream("POST", f"{address}/v1/chat/completions", json=content, timeout=0.5) as reply,
    ):
        assert next(reply.iter_raw()).startswith(EVENTS[0])
    assert upstream.gone.wait(10)


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_an_error_of_the_upstream_keeps_its_status_body_and_headers(
    status: int, address: str, upstream: Upstream, asked: Asked
) -> None:
    upstream.status, upstream.reply = status, b'{"error": {"message": "no such model"}}'
    upstream.headers = {"Retry-After": "7", "X-Request-Id": "r-1", "Set-Cookie": "a=b"}
    reply = complete(address, chat_turns([], asked.queries[0]))
    assert (reply.status_code, reply.content) == (status, upstream.reply)
    assert reply.headers["Retry-After"] == "7"
    assert reply.headers["X-Request-Id"] == "r-1"
    assert "Set-Cookie" not in reply.headers


def test_models_are_those_of_the_upstream(address: str, upstream: Upstream) -> None:
    upstream.reply = b'{"data": [{"id": "m"}]}'
    assert httpx2.get(f"{address}/v1/models").content == upstream.reply


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("down", 502, "sent no reply"),
        ("silent", 504, "did not answer within 0.5 s"),
        ("broken", 502, "sent no reply"),
        ("redirect", 502, "redirects to http://elsewhere/v1"),
    ],
)
def test_an_upstream_that_gives_no_reply_is_a_sentence(
    how: str, status: int, said: str, service: Service, upstream: Upstream, asked: Asked
) -> None:
    upstream.how = how
    if how == "redirect":
        upstream.status, upstream.headers = 307, {"Location": "http://elsewhere/v1"}
    with answering(upstream) as url, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1" if how == "down" else url
        with serving(make_app(service, Behind(place, timeout_s=0.5))) as address:
            reply = complete(address, chat_turns([], asked.queries[0]))
        assert reply.status_code == status
        error = reply.json()["error"]
        assert error["type"] == "server_error"
        assert said in error["message"]
        assert place in error["message"]


def test_a_stream_that_stops_ends_with_an_error(
    service: Service, upstream: Upstream, asked: Asked
) -> None:
    upstream.how = "stream"
    upstream.go_on.release()
    content = {"messages": chat_turns([], asked.queries[0]), "stream": True}
    with (
        answering(upstream) as url,
        serving(make_app(service, Behind(url, timeout_s=0.5))) as address,
    ):
        reply = httpx2.post(f"{address}/v1/chat/completions", json=content, timeout=60)
    first, last = reply.content.strip().rsplit(b"\n\n", 1)
    assert first.strip() == EVENTS[0].strip()
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert "did not answer within 0.5 s" in error["message"]


def test_the_upstream_gets_its_own_key_and_not_the_client_s(
    service: Service, upstream: Upstream, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-upstream")
    monkeypatch.setenv("LEVER_PLUS_API_KEY", "of-this-server")
    chat = chat_turns([], asked.queries[0])
    with answering(upstream) as url, serving(make_app(service, Behind(url))) as address:
        assert complete(address, chat).status_code == 401
        assert not upstream.seen
        reply = httpx2.post(
            f"{address}/v1/chat/completions",
            json={"messages": chat},
            headers={"Authorization": "Bearer of-this-server", "X-Own": "a"},
        )
    assert reply.status_code == 200
    (seen,) = upstream.seen
    assert seen["Authorization"] == "Bearer of-the-upstream"
    assert "of-this-server" not in str(seen)


def test_a_pool_whose_images_are_gone_is_the_server_s_fault(
    service: Service, upstream: Upstream, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_arguments: object) -> Chat:
        from lever_plus.errors import UserError

        raise UserError("image a.png cannot be read: restore it.")

    monkeypatch.setattr("lever_plus.hosts.serve.proxy.chat_turns", gone)
    with answering(upstream) as url, serving(make_app(service, Behind(url))) as address:
        reply = complete(address, chat_turns([], asked.queries[0]))
    assert reply.status_code == 500
    assert "a.png cannot be read" in reply.json()["error"]["message"]


def test_50_clients_at_once_lose_nothing(address: str, upstream: Upstream, asked: Asked) -> None:
    bodies = [{"messages": chat_turns([], query)} for query in asked.queries[:100]]
    whole = deepcopy(bodies)

    async def all_of_them() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
            where = f"{address}/v1/chat/completions"
            return await asyncio.gather(*(client.post(where, json=body) for body in bodies))

    replies = asyncio.run(all_of_them())
    assert [reply.text for reply in replies if reply.status_code != 200] == []
    ids = [reply.headers["X-Lever-Plus-Question-Ids"] for reply in replies]
    chosen = [[str(e.question_id) for e in each] for each in asked.chosen[: len(bodies)]]
    assert ids == [", ".join(each) for each in chosen]
    assert len(upstream.bodies) == len(bodies)
    assert whole == bodies
