"""A small OpenAI-compatible server over a real VLM, on loopback: the protocol, not a mock.

Chat completions with images as data URLs, `prompt_logprobs` and `/tokenize` as vLLM offers them. It
computes everything with processor and model alone, so that it checks the client and not itself.
"""

import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image

NAME = "tiny-vlm"


class Vlm:
    """What the server answers with."""

    def __init__(
        self, model: Any, processor: Any, *, echoes: bool, longest: int | None = None
    ) -> None:
        """Keep the model.

        Args:
            model: The model.
            processor: Its processor.
            echoes: Whether prompt log-probabilities are offered.
            longest: Most tokens that it reads at once, for `/tokenize`; None does not offer that.
        """
        self.model, self.processor, self.echoes = model, processor, echoes
        self.longest, self.asked = longest, Counter[str]()
        self.lock, self.counting = threading.Lock(), threading.Lock()
        self.failures = 0
        self.active = self.most_active = 0

    def inputs(self, body: dict[str, Any]) -> Any:
        turns, images = self._read(body["messages"])
        text = self.processor.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
        )
        return self.processor(
            text=[text], images=[images], add_special_tokens=False, return_tensors="pt"
        )

    def tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.inputs(body)["input_ids"][0].tolist()
        return {"count": len(ids), "max_model_len": self.longest, "tokens": ids}

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock, torch.inference_mode():
            inputs = self.inputs(body)
            output = self.model.generate(
                **inputs, max_new_tokens=body["max_tokens"], do_sample=False
            )
            ids = inputs["input_ids"][0]
            answer = self.processor.tokenizer.decode(
                output[0, len(ids) :], skip_special_tokens=True
            )
            reply: dict[str, Any] = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": answer},
                    }
                ],
            }
            if self.echoes and "prompt_logprobs" in body:
                log_probs = self.model(**inputs).logits[0].log_softmax(-1)
                reply["prompt_logprobs"] = [None] + [
                    {str(int(i)): {"logprob": float(log_probs[t, i]), "rank": 1}}
                    for t, i in enumerate(ids[1:])
                ]
        return reply

    @staticmethod
    def _read(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
        images, turns = [], []
        for message in messages:
            content = message["content"]
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            turn = []
            for part in parts:
                if part["type"] == "image_url":
                    encoded = part["image_url"]["url"].partition("base64,")[2]
                    images.append(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
                    turn.append({"type": "image"})
                else:
                    turn.append(part)
            turns.append({"role": message["role"], "content": turn})
        return turns, images


@contextmanager
def serve(vlm: Vlm) -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with vlm.counting:
                vlm.asked[self.path] += 1
                vlm.active += 1
                vlm.most_active = max(vlm.most_active, vlm.active)
            try:
                status, content = self.reply(body)
            finally:
                # Before the client has its answer: then it may ask again.
                with vlm.counting:
                    vlm.active -= 1
            self.answer(status, content)

        def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if self.path == "/tokenize":
                offered = vlm.longest is not None
                return (200, vlm.tokens(body)) if offered else (404, {"detail": "Not Found"})
            if body["model"] != NAME:
                return 404, {"error": {"message": f"no model {body['model']}"}}
            if vlm.failures > 0:
                vlm.failures -= 1
                return 503, {"error": {"message": "busy"}}
            return 200, vlm.reply(body)

        def do_GET(self) -> None:
            self.answer(200, {"data": [{"id": NAME}]})

        def answer(self, status: int, content: dict[str, Any]) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
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
