"""A server sends damaged replies: a sentence with its address, nothing stored; or the text."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from PIL import Image
from texts import VALUES, changed, damaged

from lever_plus.cli.doctor import examine
from lever_plus.config.file import load_with_preset
from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import Query
from lever_plus.errors import UserError
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from tiny_world import ROOT
from vlm.raw_server import Bytes, Raw, http, raw_server

KEY = "T0psecret-k3y"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "cät", "refusal": None, "tool_calls": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "root": "m", "parent": None}]}


def echo(*ids: int) -> dict[str, Any]:
    words = {7: "c", 8: "ät"}
    entries = [{str(i): {"logprob": -i / 8, "decoded_token": words.get(i, "x")}} for i in ids]
    return {**ANSWER, "prompt_logprobs": [None, *entries]}


class Asked:
    """Asks one question after the other, through one store."""

    def __init__(self, server: Raw, folder: Path) -> None:
        """Keep where questions go, and make their image."""
        self.server, self.store = server, Store(folder / "answers.sqlite")
        self.image = str(folder / "a.png")
        Image.new("RGB", (1, 1)).save(self.image)
        self.number, self.kept = 0, 0
        content = {
            **{"kind": "openai", "url": server.url, "model": "m", "revision": "r", "dtype": "-"},
            **{"instruction": "", "max_new_tokens": 3, "concurrency": 1, "timeout_s": 5.0},
        }
        content |= {"patience_s": 0.0, "canary": "off"}
        self.params = OpenAiVlmParams.model_validate(content)

    def ask(self, kind: str, *replies: Bytes) -> Any:
        """Ask a new question and return the stored answer, which must be the one returned."""
        rest = iter(replies)
        self.server.reply = lambda _path: next(rest, http(b"{}"))
        vlm = StoredVlm(OpenAiVlm(self.params), self.store)
        self.number += 1
        request = Request((), Query(self.image, f"q{self.number}"), "cät")
        try:
            (found,) = vlm.answers([request]) if kind == "text" else vlm.log_likelihoods([request])
        except UserError as error:
            self.check(str(error))
            raise
        self.kept += 1
        assert self.rows() == self.kept
        rows = self.store._connection.execute(f"SELECT {kind} FROM answer").fetchall()
        assert (found,) in rows or (kind == "text" and found in {row[0].strip() for row in rows})
        return found

    def check(self, message: str) -> None:
        """Check what a sentence must not have, and that nothing was stored."""
        assert self.rows() == self.kept, "something was stored"
        assert KEY not in message, "the key is shown"
        assert message.isprintable(), "control characters are shown"
        assert len(message) < 1500, "the server's words are not shortened"

    def rows(self) -> int:
        (count,) = self.store._connection.execute("SELECT COUNT(*) FROM answer").fetchone()
        return int(count)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with raw_server() as raw:
        yield Asked(raw, tmp_path)


def encoded(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_answers(asked: Asked) -> None:
    def bad(name: str, body: bytes, reply: bytes) -> Bad:
        def run() -> None:
            found = asked.ask("text", reply)
            text = json.loads(body)["choices"][0]["message"]["content"]
            assert isinstance(text, str)
            assert found == text.strip()

        return Bad(name, run, (asked.server.url,))

    rng = random.Random(1)
    bodies = [(name, encoded(content)) for name, content in changed(ANSWER, rng, 250)]
    # Without escapes, half of what is damaged is no UTF-8.
    bodies += damaged(json.dumps(ANSWER, ensure_ascii=False).encode(), rng, 140)
    contents = [value for value in VALUES if not isinstance(value, str)]
    ends = ("stop", "length", "content_filter", "tool_calls", "abort", None, 7)
    for content, end in itertools.product(contents, ends):
        fresh = json.loads(encoded(ANSWER))
        fresh["choices"][0]["message"]["content"] = content
        fresh["choices"][0]["finish_reason"] = end
        bodies.append((f"content {content!r:.20}, end {end}", encoded(fresh)))
    counts = try_all("a server's answers", (bad(name, b, http(b)) for name, b in bodies))
    assert counts["refused"] > 150
    assert counts["fine"] > 50  # of these, ids and numbers of tokens, which mean nothing here


def test_no_content_but_text_is_an_answer(asked: Asked) -> None:
    for content in (value for value in VALUES if not isinstance(value, str)):
        fresh = json.loads(encoded(ANSWER))
        fresh["choices"][0]["message"]["content"] = content
        with pytest.raises(UserError):
            asked.ask("text", http(encoded(fresh)))


def test_likelihoods(asked: Asked) -> None:
    prompt, whole = echo(1, 2, 3), echo(1, 2, 3, 7, 8)

    def mean(first: bytes, second: bytes) -> float:
        known = len(json.loads(first)["prompt_logprobs"])
        rest = json.loads(second)["prompt_logprobs"][known:]
        values = [min(0.0, next(iter(entry.values()))["logprob"]) for entry in rest]
        assert values
        return sum(values) / len(values)

    def bad(name: str, first: bytes, second: bytes) -> Bad:
        def run() -> None:
            found = asked.ask("log_likelihood", http(first), http(second))
            assert found == pytest.approx(mean(first, second))

        return Bad(name, run, (asked.server.url,))

    rng = random.Random(2)
    good = encoded(prompt), encoded(whole)
    inputs = [bad(f"prompt: {n}", encoded(c), good[1]) for n, c in changed(prompt, rng, 90)]
    inputs += [bad(f"whole: {n}", good[0], encoded(c)) for n, c in changed(whole, rng, 130)]
    inputs += [bad(f"whole: {n}", good[0], c) for n, c in damaged(good[1], rng, 60)]
    counts = try_all("a server's likelihoods", inputs)
    assert counts["refused"] > 100


HEADS = (
    *({}, {"Content_Length": "1"}, {"Content_Length": "9999"}, {"Content_Length": "-1"}),
    *({"Content_Length": "x"}, {"Transfer_Encoding": "chunked"}, {"Transfer_Encoding": "gzip"}),
    *({"Content_Encoding": "gzip"}, {"Content_Encoding": "br"}, {"Location": "file:///etc/passwd"}),
    *({"Retry_After": "9" * 400}, {"X": "y" * 200_000}, {"kind": "text/event-stream"}),
    *({"kind": "text/html"}, {"Set_Cookie": "a=b"}, {"Connection": "upgrade"}, {"kind": "\xff"}),
)
STATUSES = (199, 200, 201, 204, 206, 301, 304, 308, 400, 401, 404, 405, 413, 418, 422, 429, 500)
BODIES = (
    encoded(ANSWER),
    b"",
    b"<html><title>\x1b[31mSign in</title>",
    encoded({"error": {"message": f"the key {KEY} is wrong \x07" + "!" * 9999}}),
    encoded({"detail": [{"loc": ["a"], "msg": {"a": 1}}]}),
    b"\xff\xfe\0",
    b"[" * 100_000,
)


def test_statuses_and_headers(asked: Asked) -> None:
    def bad(status: int, body: bytes, head: dict[str, str]) -> Bad:
        def run() -> None:
            assert asked.ask("text", http(body, status, **head)) == "cät"
            assert status == 200
            assert body == BODIES[0]

        return Bad(f"{status} {body[:20]!r} {head}"[:90], run, (asked.server.url,))

    every = list(itertools.product(STATUSES, BODIES, HEADS))
    chosen = random.Random(3).sample(every, 300)
    chosen += [(200, body, head) for body, head in itertools.product(BODIES[:2], HEADS)]
    try_all("a server's statuses and headers", itertools.starmap(bad, chosen))


def test_damaged_protocol(asked: Asked) -> None:
    reply = http(encoded(ANSWER), X="a")

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            # Whatever was changed was not the answer.
            assert asked.ask("text", content) == "cät"

        return Bad(name, run, (asked.server.url,))

    head = reply[: reply.index(b"\r\n\r\n") + 4]
    rest = reply[len(head) :]
    rng = random.Random(4)
    inputs = [bad(name, content + rest) for name, content in damaged(head, rng, 140)]
    try_all("a server's protocol", inputs)


def test_lists_of_models(asked: Asked) -> None:
    """The doctor asks for them: each ends as an item with a note, found only if it is there."""
    params = load_with_preset(ROOT / "params.yaml", ROOT / "presets" / "vllm.yaml")
    params = params.model_copy(update={"vlm": asked.params})

    def bad(name: str, body: bytes, status: int = 200) -> Bad:
        def run() -> None:
            asked.server.reply = lambda _path: http(body, status)
            (item,) = [item for item in examine(params) if item.name == "VLM server"]
            if not item.found:
                assert KEY not in item.note
                raise UserError(item.note)
            assert "m" in [row["id"] for row in json.loads(body)["data"] if isinstance(row, dict)]

        return Bad(name, run, (asked.server.url,))

    rng = random.Random(5)
    inputs = [bad(name, encoded(content)) for name, content in changed(MODELS, rng, 80)]
    inputs += [bad(name, content) for name, content in damaged(encoded(MODELS), rng, 70)]
    inputs += [bad(f"{s} {b[:20]!r}", b, s) for s, b in itertools.product(STATUSES[1:], BODIES[:4])]
    try_all("a server's list of models", inputs)
    assert all(path == "/v1/models" for path in asked.server.paths())
    assert all(KEY.encode() in request for request in asked.server.seen)
