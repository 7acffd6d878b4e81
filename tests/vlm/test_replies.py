"""Replies without an answer are refused at once with one sentence, and never stored."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.data.examples import Example, Query
from lever_plus.data.images import image_sha256
from lever_plus.errors import UserError
from lever_plus.vlm.backends import servers
from lever_plus.vlm.backends.openai import OpenAiVlm
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm
from vlm.raw_server import Bytes, Raw, http, raw_server

MODEL = "m"
KEY = "sk-T0psecret/key+1"


def settings(url: str, **changes: object) -> OpenAiVlmParams:
    content = {
        **{"kind": "openai", "url": url, "model": MODEL, "revision": "r", "dtype": "float32"},
        **{"instruction": "", "max_new_tokens": 3, "concurrency": 1, "timeout_s": 10.0},
        **{"patience_s": 0.0, "canary": "off", **changes},
    }
    return OpenAiVlmParams.model_validate(content)


def reply(message: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a good reply of a server, with changes to its message, its choice, or itself."""
    whole = {"model": MODEL, "object": "chat.completion", "id": "1"}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    choice |= {key: changes.pop(key) for key in ("index", "finish_reason") if key in changes}
    choice["message"] = {"role": "assistant", "content": "cat"} if message is None else message
    return {**whole, "choices": [choice], **changes}


def echo(ids: list[int], **changes: Any) -> dict[str, Any]:
    """Return an echoed prompt: token n has the log-probability -n / 10."""
    echoed = [None, *({str(i): {"logprob": -i / 10}} for i in ids[1:])]
    return {"model": MODEL, "prompt_logprobs": echoed, **changes}


def sent(content: Any) -> Bytes:
    return http(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture(scope="module")
def server() -> Iterator[Raw]:
    with raw_server() as raw:
        yield raw


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2), "red").save(path)
    return Request((), Query(str(path), "what is it?"), "cat")


class Asked:
    """Asks a server one question through a store, and knows what the store has afterwards."""

    def __init__(self, server: Raw, request: Request, folder: Path) -> None:
        """Keep all of it."""
        self.server, self.request = server, request
        self.store = Store(folder / "answers.sqlite")

    def answer(self, content: Any, **changes: object) -> str:
        self.server.reply = content if callable(content) else lambda _path: sent(content)
        self.server.seen.clear()
        vlm = StoredVlm(OpenAiVlm(settings(self.server.url, **changes)), self.store)
        (found,) = vlm.answers([self.request])
        return found

    def likelihood(self, *replies: Any, **changes: object) -> float:
        rest = iter(replies)
        self.server.reply = lambda _path: sent(next(rest, {}))
        vlm = StoredVlm(OpenAiVlm(settings(self.server.url, **changes)), self.store)
        (found,) = vlm.log_likelihoods([self.request])
        return found

    @property
    def kept(self) -> int:
        return sum(each.answers + each.log_likelihoods for each in self.store.statistics())


@pytest.fixture
def asked(server: Raw, request_: Request, tmp_path: Path) -> Asked:
    return Asked(server, request_, tmp_path)


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


TEXTS = {
    "a word": ("cat", "stop"),
    "a whole answer that was cut": ("a b c", "length"),
    "nothing": ("", "stop"),
    "a NUL": ("a\0b", "stop"),
    "signs of other planes": ("\U0001f431 ä", "stop"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_stored_as_they_are(name: str, asked: Asked) -> None:
    text, end = TEXTS[name]
    assert asked.answer(reply(said(text), finish_reason=end)) == text
    (path, *more) = asked.server.paths()
    assert (path, more) == ("/v1/chat/completions", [])
    (row,) = asked.store._connection.execute("SELECT text FROM answer").fetchall()
    assert row == (text,)


NO_ANSWERS: dict[str, tuple[Any, str]] = {
    "an error": ({"error": {"message": "busy", "code": 500}}, r"sent an error \(busy\)"),
    "an error text": ({"error": "model is loading"}, r"sent an error \(model is loading\)"),
    "an old vLLM's error": ({"object": "error", "message": "no"}, r"sent an error \(no\)"),
    "an error beside choices": (reply(error={"message": "half"}), r"sent an error \(half\)"),
    "HTML": (b"<html><head><title>Sign in</title>", r"instead of JSON \(Sign in\): set vlm.url"),
    "text": (b"ok", r"instead of JSON \(ok\)"),
    "nothing": (b"", "empty reply"),
    "white space": (b" \n", "empty reply"),
    "half an object": (json.dumps(reply()).encode()[:-9], "not valid JSON"),
    "a number": (b"1", "instead of JSON"),
    "null": (b"null", "instead of JSON"),
    "a list": ([reply()], "not a JSON object"),
    "Latin-1": (json.dumps(reply(said("ä")), ensure_ascii=False).encode("latin-1"), "not UTF-8"),
    "half a character": (json.dumps(reply(said("\ud83d"))).encode(), "half a character"),
    "NaN": (b'{"choices": NaN}', "NaN is not a number"),
    "a key twice": (b'{"model": "m", "model": "n"}', "occurs twice"),
    "deep nesting": (b"[" * 50_000, "nested too deeply|not valid JSON"),
    "a stream": (b'data: {"choices": []}\n\ndata: [DONE]\n\n', "instead of JSON"),
    "no choices": ({"model": MODEL}, "no list of choices"),
    "empty choices": (reply(choices=[]), "0 choices"),
    "two choices": (reply(choices=reply()["choices"] * 2), "2 choices"),
    "choices as an object": (reply(choices={"0": {}}), "no list of choices"),
    "choices of texts": (reply(choices=["cat"]), "1 choices"),
    "another choice": (reply(index=1), "number 1, not 0"),
    "no message": (reply(choices=[{"text": "cat"}]), "no message"),
    "a message of the user": (reply({"role": "user", "content": "x"}), "'user', not of the assis"),
    "null as content": (reply(said(None)), "no answer and gives no reason"),
    "null, cut": (reply(said(None), finish_reason="length"), "no answer within vlm.max_new_tokens"),
    "empty, cut": (reply(said(""), finish_reason="length"), "no answer within vlm.max_new_tokens"),
    "thoughts alone": (reply(said("", reasoning_content="hm")), "thoughts"),
    "thoughts, null": (reply(said(None, reasoning="hm")), "thoughts"),
    "thoughts in the text": (
        reply(
            said(
                "<think>hm",
            )
        ),
        r"thoughts \(<think>\)",
    ),
    **{
        f"thoughts, {text!r}": (reply(said(text)), f"thoughts.*{mark}.*turned off")
        for text, mark in (
            ("Let me see.</think>\n\ncat", "</think>"),
            ("<thinking>The image", "<thinking>"),
            ("◁think▷The image", "◁think▷"),
            ("[THINK]The image", r"\[THINK\]"),
            ("<|channel|>analysis", r"<\|channel\|>"),
            ("<seed:think>The image", "<seed:think>"),
        )
    },
    **{
        f"thoughts, {more}": (reply(said("", **{more: ["hm"]})), "thoughts")
        for more in ("reasoning", "reasoning_details", "thinking", "thinking_blocks")
    },
    "thoughts, counted": (
        reply(said(""), usage={"completion_tokens_details": {"reasoning_tokens": 3}}),
        "went into thoughts",
    ),
    **{
        f"the token {token}": (reply(said(f"cat{token}\n")), "special tokens out")
        for token in ("<|im_end|>", "</s>", "<end_of_utterance>", "<pad>", "<|eot_id|>")
    },
    "more tokens than were asked for": (
        reply(usage={"completion_tokens": 37}),
        r"counts 37 tokens, more than vlm.max_new_tokens \(3\)",
    ),
    "an error in the choice": (
        reply(choices=[{**reply()["choices"][0], "error": {"message": "gone"}}]),
        "ended its answer early .*gone",
    ),
    "an error in the message": (reply(said("ca", error="gone")), "ended its answer early .*gone"),
    "no content": (reply({"role": "assistant"}), "no answer and gives no reason"),
    "a number as content": (reply(said(7)), "content is 7, not a text"),
    "true as content": (reply(said(True)), "content is True, not a text"),
    "an object as content": (reply(said({"a": 1})), "content is {'a': 1}, not a text"),
    "parts as content": (reply(said([{"type": "text", "text": "cat"}])), "not a text"),
    "far too much": (reply(said("x" * 5_000)), "ignores max_tokens"),
    "a tool": (reply(said(None, tool_calls=[{"id": "1"}]), finish_reason="stop"), "calls a tool"),
    "a tool's end": (reply(said("x"), finish_reason="tool_calls"), "'tool_calls'"),
    "a filter": (reply(said("x"), finish_reason="content_filter"), "'content_filter'"),
    "an abort": (reply(said("x"), finish_reason="abort"), "'abort'"),
    "an end that is a number": (reply(finish_reason=1), "the reason 1"),
    "a refusal": (reply(said(None, refusal="I can't")), "refuses to answer"),
    "another model": (reply(model="n"), r"from the model 'n', not from m: set vlm.model"),
    "a model as a list": (reply(model=["m"]), "from the model"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_replies_without_an_answer_are_refused(name: str, asked: Asked) -> None:
    content, message = NO_ANSWERS[name]
    with pytest.raises(UserError, match=message) as caught:
        asked.answer(content, patience_s=9.0)
    assert asked.server.url in str(caught.value)
    assert asked.kept == 0
    # Not again: it would be the same. Where the model may be the reason, the server's are named.
    assert asked.server.paths().count("/v1/chat/completions") == 1


@pytest.mark.parametrize("name", ["m", "M", "hub/m", "m-2024-08-06", None])
def test_names_of_the_same_model_are_taken(name: str | None, asked: Asked) -> None:
    assert asked.answer(reply(model=name)) == "cat"


ECHOES: dict[str, tuple[list[Any], str]] = {
    "no echo": ([reply()], "does not echo the log-probabilities"),
    "an object": ([echo([1], prompt_logprobs={"1": 2})], "prompt_logprobs is not a list"),
    "missing ones": ([echo([1], prompt_logprobs=[None, None])], "token 1 is None"),
    "numbers": ([echo([1], prompt_logprobs=[None, -0.5])], "token 1 is -0.5"),
    "tokens without ids": (
        [echo([1], prompt_logprobs=[None, {"a": {"logprob": -1}}])],
        "has no token id",
    ),
    "no value": ([echo([1], prompt_logprobs=[None, {"1": {}}])], "None is not a log"),
    "a text": ([echo([1], prompt_logprobs=[None, {"1": {"logprob": "-1"}}])], "'-1' is not a log"),
    "true": ([echo([1], prompt_logprobs=[None, {"1": {"logprob": True}}])], "True is not a log"),
    "positive": ([echo([1], prompt_logprobs=[None, {"1": {"logprob": 0.5}}])], "0.5 is not a log"),
    "huge": ([b'{"prompt_logprobs": [null, {"1": {"logprob": -1e999}}]}'], "larger than any"),
    "an integer without end": (
        [b'{"prompt_logprobs": [null, {"1": {"logprob": -1' + b"0" * 400 + b"}}]}"],
        "not a log-probability",
    ),
    "NaN": ([b'{"prompt_logprobs": [null, {"1": {"logprob": NaN}}]}'], "NaN is not a number"),
    "another prompt": ([echo([1, 2]), echo([1, 3, 4])], "does not continue the prompt's own"),
    "no more tokens": ([echo([1, 2]), echo([1, 2])], "does not continue the prompt's own"),
    "fewer tokens": ([echo([1, 2, 3]), echo([1, 2])], "does not continue the prompt's own"),
    "another model": ([echo([1, 2], model="n")], "from the model 'n'"),
    "an error": ([echo([1, 2]), {"error": "out of memory"}], "out of memory"),
    "other words": (
        [
            echo([1, 2]),
            echo(
                [1, 2],
                prompt_logprobs=[
                    None,
                    *(
                        {i: {"logprob": -1.0, "decoded_token": t}}
                        for i, t in (("2", "?"), ("3", "cat"), ("4", "<end>"))
                    ),
                ],
            ),
        ],
        "'cat<end>' instead of the answer 'cat': the server ignores continue_final_message",
    ),
}


@pytest.mark.parametrize("name", ECHOES)
def test_replies_without_log_probabilities_are_refused(name: str, asked: Asked) -> None:
    replies, message = ECHOES[name]
    with pytest.raises(UserError, match=message):
        asked.likelihood(*replies)
    assert asked.kept == 0


def test_a_likelihood_is_the_mean_over_the_answer_s_tokens(asked: Asked) -> None:
    assert asked.likelihood(echo([1, 2]), echo([1, 2, 3, 5])) == pytest.approx(-0.4)


def test_a_value_that_rounding_put_above_0_is_0(asked: Asked) -> None:
    whole = [None, {"2": {"logprob": -1}}, {"3": {"logprob": 1e-7, "decoded_token": " cat"}}]
    assert asked.likelihood(echo([1, 2]), echo([], prompt_logprobs=whole)) == 0.0


REFUSED = {
    "a key": (401, {"error": {"message": "Unauthorized"}}, "environment variable OPENAI_API_KEY"),
    "no entry": (403, {"detail": "Forbidden"}, r"\(Forbidden\): put a key"),
    "images": (
        400,
        {"message": "At most 1 image(s) may be provided in one prompt."},
        r"At most 1 image\(s\).*--limit-mm-per-prompt",
    ),
    "a length": (
        400,
        {"error": {"message": "This model's maximum context length is 4096 tokens."}},
        "maximum context length is 4096 tokens.*--max-model-len",
    ),
    "a text model": (400, {"message": "x is not a multimodal model"}, "a model that sees images"),
    "a size": (
        413,
        b"<h1>413 Request Entity Too Large</h1>",
        "413 Request Entity.*larger requests",
    ),
    "a field": (422, {"detail": [{"loc": ["a"], "msg": "Field required"}]}, "Field required"),
    "credit": (429, {"error": {"message": "no", "code": "insufficient_quota"}}, "no credit left"),
    "a redirect": (307, b"", "redirects to http://elsewhere.example/x.*not followed: if"),
    "no content": (204, b"", "status 204"),
    "a status of no kind": (299, b"{}", "status 299"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_will_not_pass_is_refused_at_once_in_the_server_s_words(
    name: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, content, message = REFUSED[name]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    def answer(_path: str) -> bytes:
        return http(body, status, Location=f"http://elsewhere.example/x?key={KEY}")

    with pytest.raises(UserError, match=message) as caught:
        asked.answer(answer, patience_s=9.0)
    assert "Start the server" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert asked.server.paths().count("/v1/chat/completions") == 1
    assert asked.kept == 0


def test_models_are_named_where_the_model_is_unknown(asked: Asked) -> None:
    def answer(path: str) -> bytes:
        if path.endswith("/models"):
            return http(b'{"data": [{"id": "a"}, {"id": "b"}]}')
        return http(b'{"message": "The model `m` does not exist."}', 404)

    with pytest.raises(UserError, match=r"does not exist.*offers a, b, not m\."):
        asked.answer(answer)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("after", ["0", "-1", "1e99", "nan", "soon", "date", None])
def test_what_may_pass_is_asked_again(
    status: int, after: str | None, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "BACKOFF_SECONDS", 0.0)
    value = formatdate(time.time() - 5, usegmt=True) if after == "date" else after
    headers = {"Retry_After": value} if value else {}
    bad = iter([http(b"busy", status, **headers)] * 2)
    assert asked.answer(lambda _path: next(bad, None) or sent(reply()), patience_s=9.0) == "cat"
    assert len(asked.server.seen) == 3


def test_a_wait_that_the_server_asks_for_is_kept_if_it_is_sensible(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    wishes = iter(["5", formatdate(time.time() + 8, usegmt=True), "3600", "11"])

    def answer(_path: str) -> Bytes:
        wish = next(wishes, None)
        return http(b"", 429, Retry_After=wish) if wish else sent(reply())

    asked.answer(answer, patience_s=9.0)
    assert waits[0] == 5
    assert 5 <= waits[1] <= 8
    assert all(wait <= servers.LONGEST_BACKOFF for wait in waits[2:])


BROKEN: dict[str, tuple[Callable[[], Bytes], str]] = {
    "no HTTP": (lambda: b"SSH-2.0-OpenSSH\r\n", "ended the connection without an HTTP reply"),
    "nothing": (lambda: b"", "ended the connection without an HTTP reply"),
    "half a head": (lambda: b"HTTP/1.1 200 OK\r\nContent-", "ended the connection without"),
    "huge headers": (lambda: http(b"{}", X="y" * 300_000), "ended the connection"),
    "headers without end": (
        lambda: [b"HTTP/1.1 200 OK\r\n", *(b"X-%d: y\r\n" % n for n in range(50_000))],
        "ended the connection",
    ),
    "less than promised": (
        lambda: http(b'{"a": 1}', Content_Length="99"),
        "in the middle of its reply",
    ),
    "a length that is none": (lambda: http(b"{}", Content_Length="-3"), "ended the connection"),
    "two lengths": (lambda: http(b"{}", Content_Length="2\r\nContent-Length: 3"), "ended the conn"),
    "a chunk that is none": (
        lambda: http(b"zz\r\n{}\r\n", Transfer_Encoding="chunked"),
        "in the middle of its reply",
    ),
    "packed": (
        lambda: http(gzip.compress(json.dumps(reply()).encode()), Content_Encoding="gzip"),
        "encoding gzip, which was not asked for",
    ),
    "a bomb": (
        lambda: http(gzip.compress(b"[" * 50_000_000), Content_Encoding="gzip"),
        "encoding gzip",
    ),
    "a flood": (
        lambda: [http(b"{", Content_Length="400000000"), *(b" " * 65_536 for _ in range(6_000))],
        "more than 4,194,304 bytes",
    ),
    "chunks without end": (
        lambda: [
            http(b"", Transfer_Encoding="chunked"),
            *(b"10000\r\n" + b" " * 65_536 + b"\r\n" for _ in range(6_000)),
        ],
        "more than 4,194,304 bytes",
    ),
    "an error without end": (
        lambda: [
            http(b"oh", 400, Content_Length="400000000"),
            *(b"x" * 65_536 for _ in range(999)),
        ],
        r"status 400 \(ohxx",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_connections_and_floods_end_in_a_sentence(name: str, asked: Asked) -> None:
    make, message = BROKEN[name]
    begun = time.monotonic()
    with pytest.raises(UserError, match=message):
        asked.answer(lambda _path: make())
    assert time.monotonic() - begun < 10
    assert asked.kept == 0


def test_a_reply_behind_a_reply_is_nobody_s(asked: Asked) -> None:
    """A server that sends two replies at once must not have the second taken for the next."""
    replies = iter("ab")

    def answer(_path: str) -> bytes:
        letter = next(replies)
        both = [http(json.dumps(reply(said(text))).encode()) for text in (letter, "wrong")]
        return b"".join(both)

    asked.server.reply = answer
    vlm = OpenAiVlm(settings(asked.server.url))
    assert vlm.answers([asked.request, asked.request]) == ["a", "b"]


def _drip(head: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(100):
        time.sleep(0.05)
        yield b" " if head else b""


@pytest.mark.parametrize("place", ["head", "body", "error", "silence"])
def test_a_server_that_drips_is_left(place: str, asked: Asked) -> None:
    heads = {
        "head": b"HTTP/1.1 200 OK\r\nX: ",
        "body": http(b"", Content_Length="5000"),
        "error": http(b"", 400, Content_Length="5000"),
        "silence": b"",
    }
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"did not answer for model m within 0.3 s.*vlm.timeout_s"):
        asked.answer(lambda _path: _drip(heads[place]), timeout_s=0.3)
    assert time.monotonic() - begun < 3
    assert asked.kept == 0


def test_answers_before_a_bad_reply_are_stored(asked: Asked) -> None:
    replies = iter([reply(said("a")), reply(said("b")), reply(said(None))])
    asked.server.reply = lambda _path: sent(next(replies))
    vlm = StoredVlm(OpenAiVlm(settings(asked.server.url)), asked.store)
    query = asked.request.query
    with pytest.raises(UserError, match=r"reply to 'q\d' \(.*a.png\): it has no answer"):
        vlm.answers([Request((), Query(query.image, f"q{n}")) for n in range(5)])
    assert asked.kept == 2


def test_the_key_is_sent_to_the_server_and_shown_nowhere(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert asked.answer(reply()) == "cat"
    assert f"authorization: bearer {KEY}".lower() in asked.server.seen[0].decode().lower()
    for status in (200, 400, 500):
        content = json.dumps({"error": {"message": f"the key {KEY} is wrong"}}).encode()
        asked.request = asked.request._replace(query=Query(asked.request.query.image, str(status)))
        with pytest.raises(UserError, match=r"the key \*\*\* is wrong") as caught:
            asked.answer(lambda _path, c=content, s=status: http(c, s))
        assert KEY not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(UserError, match="OPENAI_API_KEY has a character"):
        asked.answer(reply())


def test_servers_on_this_machine_are_not_asked_through_a_proxy(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert asked.answer(reply()) == "cat"


def test_a_server_elsewhere_is_asked_through_the_proxy(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", asked.server.url.removesuffix("/v1"))
    asked.server.reply = lambda _path: sent(reply())
    vlm = OpenAiVlm(settings("http://elsewhere.example/v1"))
    assert vlm.answers([asked.request]) == ["cat"]
    assert asked.server.paths()[-1] == "http://elsewhere.example/v1/chat/completions"


BAD_ENVIRONMENTS = {
    "no package for SOCKS": ("ALL_PROXY", "socks5://127.0.0.1:9", "proxy of the environment"),
    "no proxy": ("HTTP_PROXY", "ftp://u:pa55w0rd@x:1", "proxy of the environment"),
    "half an address": ("HTTPS_PROXY", "http://[::1", "proxy of the environment"),
    "no file": ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE=/no/such/file"),
    "no certificates": ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE to a file of certificates"),
}


@pytest.mark.parametrize("name", BAD_ENVIRONMENTS)
def test_what_the_environment_names_wrongly_is_said(
    name: str, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, value, message = BAD_ENVIRONMENTS[name]
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message) as caught:
        OpenAiVlm(settings("https://elsewhere.example/v1")).answers([asked.request])
    assert "https://elsewhere.example/v1 cannot be asked" in str(caught.value)
    assert "pa55w0rd" not in str(caught.value)


def test_where_a_loop_runs_answers_are_stored_all_the_same(asked: Asked) -> None:
    """A notebook's cells run in a loop; the store belongs to the thread that has opened it."""

    async def cell() -> str:
        return asked.answer(reply())

    assert asyncio.run(cell()) == "cat"
    assert asked.kept == 1


def test_where_a_loop_runs_a_reply_without_an_answer_is_refused(asked: Asked) -> None:
    async def cell() -> str:
        return asked.answer(reply(said(7)))

    with pytest.raises(UserError, match="content is 7"):
        asyncio.run(cell())


def test_where_a_loop_runs_a_store_that_fails_ends_the_requests(asked: Asked) -> None:
    """Requests that nobody answers any more are not waited for."""
    replies = [sent(reply()), (time.sleep(8) or b"" for _ in range(1))]
    asked.server.reply = lambda _path: replies.pop(0)

    def full(_numbers: object, _answers: object) -> None:
        raise UserError("the disk is full")

    async def cell() -> list[str]:
        vlm = OpenAiVlm(settings(asked.server.url, concurrency=2))
        return vlm.answers([asked.request] * 2, full)

    begun = time.monotonic()
    with pytest.raises(UserError, match="the disk is full"):
        asyncio.run(cell())
    assert time.monotonic() - begun < 5


def test_words_of_a_server_are_printable_and_short(asked: Asked) -> None:
    words = "\x1b[2J\x07red\n" + "long " * 500
    content = json.dumps({"message": words}).encode()
    with pytest.raises(UserError, match="red long") as caught:
        asked.answer(lambda _path: http(content, 400))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_an_image_that_was_changed_since_it_was_hashed_is_not_asked_about(
    asked: Asked, tmp_path: Path
) -> None:
    """Its answer would be stored as that of the earlier image."""
    path = tmp_path / "b.png"
    Image.new("RGB", (2, 2), "red").save(path)
    query = Query(str(path), "which?", image_sha256=image_sha256(path))
    asked.request = Request((), query, "cat")
    assert asked.answer(reply()) == "cat"
    Image.new("RGB", (2, 2), "blue").save(path)
    for request in (
        Request((), replace(query, question="what?"), "cat"),
        Request((Example(str(path), "x", "y", image_sha256=query.image_sha256),), query, "cat"),
    ):
        asked.request = request
        with pytest.raises(UserError, match=f"image {path} was changed after .* the old one back"):
            asked.answer(reply())
        with pytest.raises(UserError, match="was changed after"):
            asked.likelihood(echo([1, 2]), echo([1, 2, 3]))
    assert asked.server.paths() == []
    assert asked.kept == 1
