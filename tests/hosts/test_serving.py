"""`POST /select` over real HTTP: the pipeline's choices; a sentence for what cannot be asked."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import exp
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hosts.chat_server import Upstream, answering, serving
from hosts.conftest import Asked, posted
from lever_plus import Query, load_selector, open_vlm
from lever_plus.data.images import image_url
from lever_plus.errors import UserError
from lever_plus.hosts.serve.batches import Batches
from lever_plus.hosts.serve.passing import PassingFeatures
from lever_plus.hosts.serve.service import Asked as Question
from lever_plus.hosts.serve.service import Service
from lever_plus.hosts.serve.serving import listening, make_app
from lever_plus.hosts.serve.web import KEY_VARIABLE, REQUEST_BYTES
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.live_pool import LivePool
from lever_plus.vlm.request import Request
from pipeline.warm import folder_of_commands
from tiny_world import Folders
from trained_selector import SHOTS


@pytest.fixture(scope="module")
def service(trained: LearnedSelector, asked: Asked) -> Service:
    return Service(trained, asked.pool, SHOTS)


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    with serving(make_app(service)) as address:
        yield address


def select(address: str, **content: object) -> httpx2.Response:
    return httpx2.post(f"{address}/select", json=content, timeout=60)


def message_of(reply: httpx2.Response) -> str:
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    message: str = error["message"]
    return message


def test_200_unseen_questions_get_the_demonstrations_of_the_selector(
    address: str, asked: Asked
) -> None:
    with ThreadPoolExecutor(8) as pool, httpx2.Client(timeout=60) as client:

        def ask(query: Query) -> httpx2.Response:
            return client.post(f"{address}/select", json=posted(query))

        replies = [*pool.map(ask, asked.queries)]
    assert {reply.status_code for reply in replies} == {200}
    found = [
        [(d["question_id"], d["image"], d["question"], d["answer"]) for d in shown]
        for shown in (reply.json()["demonstrations"] for reply in replies)
    ]
    assert found == [
        [(e.question_id, image_url(e.image), e.question, e.answer) for e in chosen]
        for chosen in asked.chosen
    ]


def test_probabilities_shots_and_a_pool_of_its_own(
    address: str, trained: LearnedSelector, asked: Asked
) -> None:
    query, pool = asked.queries[0], asked.pool[10:30]
    rows = [{"image": image_url(e.image), "question": e.question, "answer": e.answer} for e in pool]
    reply = select(address, **posted(query), shots=1, pool=rows, images=False)
    (expected,) = trained.select_all([query], [pool], 1)
    (shown,) = reply.json()["demonstrations"]
    number = pool.index(expected.examples[0])
    assert shown == {
        "question_id": number + 1,
        "question": pool[number].question,
        "answer": pool[number].answer,
        "probability": pytest.approx(exp(expected.log_probs[0]), abs=1e-4),
    }


def test_the_vlm_answers_without_and_with_them(
    service: Service, folders: Folders, asked: Asked
) -> None:
    vlm, query = open_vlm(folders.vlm), asked.queries[0]
    with serving(make_app(service, vlm=vlm)) as address:
        reply = select(address, **posted(query), answer=True).json()
    prompts = [Request((), query), Request(asked.chosen[0], query)]
    assert [reply["answer_without"], reply["answer_with"]] == vlm.answers(prompts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": None}, "image: input should be a valid string, not None"),
        ({"image": "photo.png"}, "\"image\" is 'photo.png': send the image itself"),
        ({"image": "/etc/passwd"}, "This server does not open files by name"),
        ({"image": "https://example.org/a.png"}, "downloads nothing"),
        ({"image": "data:image/png;base64,aGFsbG8="}, "the image cannot be read: it is none of"),
        ({"image": "data:text/plain;base64,aGFsbG8="}, "is not the data URL of an image"),
        ({"question": " "}, '"question" has no text'),
        ({"question": "What <image>?"}, "VLMs read as a special token"),
        ({"question": 3}, "question: input should be a valid string, not 3"),
        ({"shots": 0}, "can pick 1 to 2 demonstrations, but 0 were asked for"),
        ({"shots": 99}, "use a larger pool, or fewer shots"),
        ({"shots": True}, "shots: input should be a valid integer"),
        ({"pool": []}, '"pool" has 0 examples: it must have between 1 and 1,024'),
        ({"pool": [{"image": "a.png", "question": "a", "answer": "b"}]}, '"pool.0.image" is'),
        ({"answer": True}, "start the server with --vlm"),
        ({"topk": 3}, "unknown key topk"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    changes: dict[str, object], said: str, address: str, asked: Asked
) -> None:
    reply = select(address, **{**posted(asked.queries[0]), **changes})
    assert reply.status_code == 400
    assert said in message_of(reply)
    assert "lever_plus" not in message_of(reply)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"{", {}, 400, "the request is not valid JSON"),
        (b"", {}, 400, "the request is not valid JSON"),
        (b"[]", {}, 400, "the request: "),
        (b'{"shots": NaN}', {}, 400, "NaN is not a number"),
        (b"\xff", {}, 400, "the request"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "send JSON"),
        (b"{}", {"Host": "evil.example"}, 403, "this host name is not served"),
    ],
)
def test_a_body_that_is_none_is_refused(
    content: bytes, headers: dict[str, str], status: int, said: str, address: str
) -> None:
    sent = {"Content-Type": "application/json", **headers}
    reply = httpx2.post(f"{address}/select", content=content, headers=sent)
    assert reply.status_code == status
    assert said in message_of(reply)


def test_a_request_is_bounded_whether_or_not_it_says_its_size(address: str) -> None:
    async def pieces() -> Any:
        for _ in range(REQUEST_BYTES // 2**20 + 1):
            yield b" " * 2**20

    async def send(content: Any) -> int:
        sent = {"Content-Type": "application/json"}
        async with httpx2.AsyncClient(timeout=60) as client:
            reply = await client.post(f"{address}/select", content=content, headers=sent)
            return reply.status_code

    assert asyncio.run(send(pieces())) == 413
    assert asyncio.run(send(b" " * (REQUEST_BYTES + 1))) == 413


def test_other_places_are_named(address: str) -> None:
    for method, path, status in (("GET", "/", 404), ("GET", "/select", 405), ("POST", "/v1", 404)):
        reply = httpx2.request(method, address + path)
        assert reply.status_code == status
        assert "POST /select" in message_of(reply)
    assert httpx2.get(f"{address}/health").json() == {"status": "ok"}


def test_50_clients_at_once_lose_nothing(address: str, asked: Asked) -> None:
    numbers = [n % 200 for n in range(250)]

    async def ask(client: httpx2.AsyncClient, mine: Sequence[int]) -> list[list[int]]:
        found = []
        for number in mine:
            content = posted(asked.queries[number])
            reply = await client.post(f"{address}/select", json={**content, "images": False})
            assert reply.status_code == 200, reply.text
            found.append([d["question_id"] for d in reply.json()["demonstrations"]])
        return found

    async def all_of_them() -> list[list[list[int]]]:
        async with httpx2.AsyncClient(timeout=60, limits=httpx2.Limits()) as client:
            return await asyncio.gather(*(ask(client, numbers[n::50]) for n in range(50)))

    for first, found in enumerate(asyncio.run(all_of_them())):
        for number, ids in zip(numbers[first::50], found, strict=True):
            assert ids == [e.question_id for e in asked.chosen[number]]


def test_who_comes_when_too_many_wait_is_told_to_come_again(
    service: Service, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slowly(asked: Sequence[Any]) -> Any:
        go_on.wait(30)
        return Service.select_all(service, asked)

    monkeypatch.setattr(service, "select_all", slowly)
    monkeypatch.setattr(
        "lever_plus.hosts.serve.serving.Batches", lambda work: Batches(work, waiting=2)
    )
    content = posted(asked.queries[0])
    with serving(make_app(service)) as address, ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(select, address, **content) for _ in range(8)]
        ended = as_completed(replies, timeout=30)
        refused = [next(ended).result() for _ in range(6)]
        go_on.set()
        assert sorted(reply.result(30).status_code for reply in replies) == [200] * 2 + [503] * 6
    assert {reply.headers["Retry-After"] for reply in refused} == {"1"}
    assert all("ask again in a moment" in message_of(reply) for reply in refused)


def test_a_question_that_fails_harms_no_other_of_its_batch(service: Service, asked: Asked) -> None:
    good = [Question(query, None, SHOTS) for query in asked.queries[:4]]
    bad = Question(asked.queries[4], asked.pool[:1], SHOTS)
    found = service.select_all([*good[:2], bad, *good[2:]])
    assert isinstance(found.pop(2), UserError)
    assert [each.examples for each in found] == asked.chosen[:4]


def test_a_pool_that_is_kept_is_served_from_its_folder(
    checkpoint: Path, asked: Asked, tmp_path: Path
) -> None:
    selector = load_selector(checkpoint)
    LivePool(selector, asked.pool, folder=tmp_path / "pool")
    service = Service(selector, tmp_path / "pool", SHOTS)
    found = service.select_all([Question(query, None, SHOTS) for query in asked.queries[:20]])
    assert [each.examples for each in found] == asked.chosen[:20]
    LivePool(selector, folder=tmp_path / "empty")
    with pytest.raises(UserError, match="empty has no examples: add some"):
        Service(selector, tmp_path / "empty", SHOTS)
    with pytest.raises(UserError, match=r"gone holds no pool \(pool.sqlite\)"):
        Service(selector, tmp_path / "gone", SHOTS)
    assert not (tmp_path / "gone").exists()


def test_questions_are_not_remembered_for_ever(trained: LearnedSelector, asked: Asked) -> None:
    features: Any = trained.features
    passing = PassingFeatures(features, of_pool=True, most=16)
    features.candidates(asked.pool)
    held = len(features._white)
    for query in asked.queries[:40]:
        passing.queries([query])
        passing.candidates(asked.pool)
    assert 0 < len(passing._passing._white) <= 16
    assert len(features._white) == held


def test_a_key_is_asked_for_where_one_is_set(
    service: Service, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "s3cret-key")
    with serving(make_app(service)) as address:

        def status(*headers: tuple[str, str]) -> int:
            content, sent = posted(asked.queries[0]), dict(headers)
            reply = httpx2.post(f"{address}/select", json=content, headers=sent)
            if reply.status_code == 401:
                assert KEY_VARIABLE in message_of(reply)
                assert "s3cret" not in reply.text
            return reply.status_code

        assert status() == 401
        assert status(("Authorization", "Bearer s3cret")) == 401
        assert status(("Authorization", "Basic s3cret-key")) == 401
        assert status(("Authorization", "Bearer s3cret-key")) == 200
        assert status(("Authorization", "bearer s3cret-key"), ("Host", "a.example")) == 200
        assert httpx2.get(f"{address}/health").status_code == 200


def test_nobody_but_this_machine_is_served_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(UserError, match=f"set {KEY_VARIABLE} to a key"):
            listening(host, 0)
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="choose another --port or --host"):
            listening("127.0.0.1", port)


@pytest.fixture
def started(
    checkpoint: Path, asked: Asked, tmp_path: Path
) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `lever-plus serve`; what a test starts ends with it."""
    rows = [{"image": e.image, "question": e.question, "answer": e.answer} for e in asked.pool]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pool.jsonl").write_text(lines, encoding="utf-8")
    processes = []

    def start(*arguments: str, fork: bool = False) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "lever_plus.cli.main"]
        command = [str(folder_of_commands(vision=False) / "lever-plus")] if fork else command
        command += ["serve", "--port", "0"]
        command += ["--checkpoint", str(checkpoint), "--pool", "pool.jsonl", *arguments]
        environment = {k: v for k, v in os.environ.items() if k != KEY_VARIABLE}
        processes.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_command_ends_after_what_is_under_way(
    started: Callable[..., "subprocess.Popen[str]"], asked: Asked
) -> None:
    upstream = Upstream()
    upstream.how = "silent"
    query = asked.queries[0]
    part = [{"type": "image_url", "image_url": {"url": image_url(query.image)}}]
    chat = [{"role": "user", "content": [*part, {"type": "text", "text": query.question}]}]
    with answering(upstream) as url, ThreadPoolExecutor(1) as pool:
        process = started("--upstream", url)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("64 examples to choose from: POST http://127.0.0.1:")
        address = said.split("POST ")[1].split("/select")[0]
        reply = pool.submit(
            httpx2.post, f"{address}/v1/chat/completions", json={"messages": chat}, timeout=60
        )
        while not upstream.bodies:
            assert not reply.done(), reply.result()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        upstream.go_on.release()
        assert reply.result().status_code == 200
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert upstream.messages[-1:] == chat


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], f"set {KEY_VARIABLE} to a key"),
        (["--upstream", "http://user:T0psecret@host/v1"], "--upstream: it holds a user"),
        (["--upstream", "host"], "--upstream: it is not an address"),
    ],
)
def test_a_command_that_cannot_work_says_why(
    arguments: list[str], said: str, started: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = started(*arguments, fork=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in errors
    assert "T0psecret" not in errors


def test_a_pool_and_a_selector_are_tried_before_anybody_asks(
    checkpoint: Path, asked: Asked
) -> None:
    with pytest.raises(UserError, match="use a larger pool, or fewer shots"):
        Service(load_selector(checkpoint), asked.pool[:1], SHOTS)
    with pytest.raises(UserError, match="can pick 1 to 2 demonstrations, but 3 were asked for"):
        Service(load_selector(checkpoint), asked.pool, 3)
