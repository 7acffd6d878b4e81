"""A small OpenAI-compatible server over a real VLM, on loopback: the protocol, not a mock.

Chat completions with images as data URLs, and `prompt_logprobs` as vLLM offers them; what else vLLM
offers where a test asks for it (`OFFERS`). It computes everything with processor and model alone,
so that it checks the client and not itself.
"""

import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import torch
from PIL import Image

NAME = "tiny-vlm"
VERSION: Final = "1.2.3"
LONGEST: Final = 4096
OFFERS: Final = frozenset(
    {"version", "tokenize", "logprob_token_ids", "logit_bias", "allowed_token_ids", "uuid"}
)
"""What vLLM offers by default; beside them "details" (cached tokens in `usage`) and "metrics",

"thinking" (thoughts, unless they are turned off), "processed" (log-probabilities after the bias)
and "moods" (answers that depend on what was asked before).
"""


class RefusedError(Exception):
    """A request that ends with status 400."""


class Vlm:
    """What the server answers with."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        echoes: bool,
        longest: int | None = None,
        offers: Collection[str] = (),
        gateway: int = 0,
    ) -> None:
        """Keep the model.

        Args:
            model: The model.
            processor: Its processor.
            echoes: Whether prompt log-probabilities are offered.
            longest: Most tokens that it reads at once, for `/tokenize`; None does not say.
            offers: What else is offered, see `OFFERS`.
            gateway: How often a path outside /v1 is answered with 502; negative: always.
        """
        self.model, self.processor, self.echoes = model, processor, echoes
        self.longest, self.asked = longest, Counter[str]()
        self.offers, self.fingerprint = offers, f"vllm-{VERSION}-0a1b"
        self.lock, self.counting = threading.Lock(), threading.Lock()
        self.failures, self.gateway = 0, gateway
        self.active = self.most_active = 0
        self.bodies: list[dict[str, Any]] = []
        self.images: dict[str, str] = {}
        self.cache: set[tuple[int, ...]] = set()
        self.counted = self.cached = 0

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        with self.lock, torch.inference_mode():
            inputs = self.inputs(body)
            output = self.model.generate(
                **inputs, max_new_tokens=body["max_tokens"], do_sample=False
            )
            ids = inputs["input_ids"][0]
            answer = self.processor.tokenizer.decode(
                output[0, len(ids) :], skip_special_tokens=True
            )
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": self._said(answer, body)},
            }
            reply: dict[str, Any] = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": self._usage(tuple(ids.tolist()), body),
            }
            if "version" in self.offers:
                reply["system_fingerprint"] = self.fingerprint
            if self.echoes and "prompt_logprobs" in body:
                log_probs = self.model(**inputs).logits[0].log_softmax(-1)
                reply["prompt_logprobs"] = [None] + [
                    {str(int(i)): {"logprob": float(log_probs[t, i]), "rank": 1}}
                    for t, i in enumerate(ids[1:])
                ]
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [self._next(inputs, body)]}
        return reply

    def _next(self, inputs: Any, body: dict[str, Any]) -> dict[str, Any]:
        """Return the next token, which a request may force, and what else the request asks for."""
        log_probs = self.model(**inputs).logits[0, -1].log_softmax(-1)
        chosen = int(log_probs.argmax())
        if "logit_bias" in self.offers and "logit_bias" in body:
            (chosen,) = map(int, body["logit_bias"])
        if "allowed_token_ids" in self.offers and "allowed_token_ids" in body:
            (chosen,) = body["allowed_token_ids"]
        others = body.get("logprob_token_ids", ()) if "logprob_token_ids" in self.offers else ()
        sure = "processed" in self.offers and "logit_bias" in body

        def entry(token: int) -> dict[str, Any]:
            value = 0.0 if sure else float(log_probs[token])
            named = body.get("return_tokens_as_token_ids")
            text = f"token_id:{token}" if named else self.processor.tokenizer.decode([token])
            return {"token": text, "logprob": value}

        return {**entry(chosen), "top_logprobs": [entry(token) for token in others]}

    def _said(self, answer: str, body: dict[str, Any]) -> str:
        if "thinking" in self.offers and self._thinks(body):
            return "<think>"
        return f"{answer} {len(self.bodies)}" if "moods" in self.offers else answer

    @staticmethod
    def _thinks(body: dict[str, Any]) -> bool:
        return bool(body.get("chat_template_kwargs", {}).get("enable_thinking", True))

    def _usage(self, ids: tuple[int, ...], body: dict[str, Any]) -> dict[str, Any]:
        """Count a prompt; the part that it begins with like an earlier one comes from the cache."""
        hits = [n for n in range(1, len(ids)) if (body.get("cache_salt"), *ids[:n]) in self.cache]
        cached = 0 if "prompt_logprobs" in body else max(hits, default=0)
        self.cache |= {(body.get("cache_salt"), *ids[:n]) for n in range(1, len(ids) + 1)}
        self.counted, self.cached = self.counted + len(ids), self.cached + cached
        details = {"cached_tokens": cached} if "details" in self.offers else None
        return {"prompt_tokens": len(ids), "prompt_tokens_details": details}

    def tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.inputs(body)["input_ids"][0].tolist()
        ids += [0] if "thinking" in self.offers and self._thinks(body) else []
        return {"count": len(ids), "max_model_len": self.longest, "tokens": ids}

    def inputs(self, body: dict[str, Any]) -> Any:
        turns, images = self._read(body["messages"])
        text = self.processor.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        return self.processor(
            text=[text],
            images=[images] if images else None,
            add_special_tokens=False,
            return_tensors="pt",
        )

    def _read(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
        images, turns = [], []
        for message in messages:
            content = message["content"]
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            turn = []
            for part in parts:
                if part["type"] == "image_url":
                    encoded = self._url(part, len(images)).partition("base64,")[2]
                    images.append(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
                    turn.append({"type": "image"})
                else:
                    turn.append(part)
            turns.append({"role": message["role"], "content": turn})
        return turns, images

    def _url(self, part: dict[str, Any], index: int) -> str:
        """Return an image, which may be one that was sent before."""
        given = part["image_url"]
        if "uuid" not in self.offers or "uuid" not in part:
            if given is None:
                raise RefusedError("image_url: Input should be a valid dictionary")
            return str(given["url"])
        if given is None and part["uuid"] not in self.images:
            raise RefusedError(f"Cache miss for image at index {index} but data is not provided.")
        return self.images.setdefault(part["uuid"], "" if given is None else given["url"])

    def page(self) -> str:
        sources = {"local_compute": self.counted - self.cached, "local_cache_hit": self.cached}
        return "".join(
            f'vllm:prompt_tokens_by_source_total{{engine="0",source="{source}"}} {count}.0\n'
            for source, count in sources.items()
        )


@contextmanager
def serve(vlm: Vlm) -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with vlm.counting:
                vlm.active += 1
                vlm.asked[self.path] += 1
                vlm.most_active = max(vlm.most_active, vlm.active)
            try:
                status, content = self.reply(body)
            finally:
                # Before the client has its answer: then it may ask again.
                with vlm.counting:
                    vlm.active -= 1
            self.answer(status, content)

        def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if body["model"] != NAME:
                return 404, {"error": {"message": f"no model {body['model']}"}}
            if vlm.failures > 0:
                vlm.failures -= 1
                return 503, {"error": {"message": "busy"}}
            if self.is_kept_back():
                return 502, {"error": {"message": "Bad Gateway"}}
            if self.path == "/v1/chat/completions":
                try:
                    return 200, vlm.reply(body)
                except RefusedError as error:
                    return 400, {"error": {"message": str(error)}}
            if self.path == "/tokenize" and ("tokenize" in vlm.offers or vlm.longest is not None):
                return 200, vlm.tokens(body)
            if "tokenize" in vlm.offers and self.path == "/detokenize":
                return 200, {"prompt": vlm.processor.tokenizer.decode(body["tokens"])}
            return 404, {"detail": "Not Found"}

        def is_kept_back(self) -> bool:
            if self.path.startswith("/v1") or not vlm.gateway:
                return False
            vlm.gateway -= 1
            return True

        def do_GET(self) -> None:
            if self.is_kept_back():
                self.answer(502, {"error": {"message": "Bad Gateway"}})
            elif self.path == "/v1/models":
                self.answer(200, {"data": [{"id": NAME, "max_model_len": LONGEST}]})
            elif self.path == "/version" and "version" in vlm.offers:
                self.answer(200, {"version": VERSION})
            elif self.path == "/metrics" and "metrics" in vlm.offers:
                self.send(200, vlm.page(), "text/plain")
            else:
                self.answer(404, {"detail": "Not Found"})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            self.send(status, json.dumps(content), "application/json")

        def send(self, status: int, content: str, kind: str) -> None:
            encoded = content.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
