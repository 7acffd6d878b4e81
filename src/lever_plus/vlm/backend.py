"""A VLM in a Hugging Face folder, asked through the prefix engine."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.vlm.prefix import PrefixEngine
from lever_plus.vlm.prompt import prompt_hash, render
from lever_plus.vlm.request import Request, VlmIdentity
from lever_plus.vlm.segments import Segments, open_image

Result = TypeVar("Result")


class HuggingFaceVlm:
    """A frozen VLM.

    Chunks of requests run side by side in threads of one torch thread each: for small models that
    is faster than one forward pass on all threads, and the result does not depend on their number.
    """

    def __init__(
        self,
        folder: Path,
        examples: Mapping[int, Example],
        *,
        max_new_tokens: int,
        batch_size: int,
        workers: int,
    ) -> None:
        """Load the model.

        Args:
            folder: Hugging Face folder with model and processor.
            examples: All examples that requests may name, by id.
            max_new_tokens: Longest answer, in tokens.
            batch_size: Requests a chunk.
            workers: Chunks that run side by side.

        Raises:
            UserError: The folder is missing.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no model: set vlm.path or run `dvc repro pretrain`.")
        self.examples, self.max_new_tokens = examples, max_new_tokens
        self._batch_size, self._workers = batch_size, workers
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self._segments = Segments(self.model, self.processor, examples)
        self._engine = PrefixEngine(self.model, self._segments)
        self.identity = VlmIdentity(
            model=type(self.model).__name__,
            revision=folder_hash(folder),
            dtype=str(self.model.dtype).removeprefix("torch."),
            prompt_hash=prompt_hash(self.processor),
            generation=f"greedy, max_new_tokens={max_new_tokens}",
        )

    def answers(self, requests: Sequence[Request], description: str = "answers") -> list[str]:
        """Return the greedy answer to each request."""

        def decode(chunk: Sequence[Request]) -> list[str]:
            ids = self._engine.generate(chunk, self.max_new_tokens)
            texts = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
            return [text.strip() for text in texts]

        return self._run(requests, decode, description)

    def log_likelihoods(
        self, requests: Sequence[Request], description: str = "likelihoods"
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each query's own answer."""
        return self._run(requests, self._engine.log_likelihoods, description)

    def answer_alone(self, request: Request) -> str:
        """Answer one request with the processor and `generate`, nothing shared: the reference."""
        examples = [self.examples[i] for i in (*request.demonstrations, request.query)]
        text = render(self.processor, examples[:-1], examples[-1])
        inputs = self.processor(
            text=[text],
            images=[open_image(example.image) for example in examples],
            add_special_tokens=False,
            return_tensors="pt",
        )
        output = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1
        )
        new = output[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()

    def _run(
        self,
        requests: Sequence[Request],
        ask: Callable[[Sequence[Request]], list[Result]],
        description: str,
    ) -> list[Result]:
        """Ask in chunks of neighbours in prefix order, in threads; return in request order."""
        self._segments.prepare(i for r in requests for i in (*r.demonstrations, r.query))
        order = sorted(range(len(requests)), key=lambda i: requests[i])
        chunks = [order[i : i + self._batch_size] for i in range(0, len(order), self._batch_size)]
        results: dict[int, Result] = {}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with (
                ThreadPoolExecutor(self._workers) as pool,
                tqdm(
                    total=len(requests), desc=description, unit="req", leave=False, disable=None
                ) as bar,
            ):
                answered = pool.map(lambda chunk: ask([requests[i] for i in chunk]), chunks)
                for chunk, answers in zip(chunks, answered, strict=True):
                    results.update(zip(chunk, answers, strict=True))
                    bar.update(len(chunk))
        finally:
            torch.set_num_threads(threads)
        return [results[i] for i in range(len(requests))]


def folder_hash(folder: Path) -> str:
    """Return a sha256 over the names and bytes of the configuration and weight files of a model."""
    digest = hashlib.sha256()
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".jinja"}
    ):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
