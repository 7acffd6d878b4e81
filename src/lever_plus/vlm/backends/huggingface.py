"""A VLM of the transformers library, run in batches on this machine."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lever_plus.config.vlm import HuggingFaceVlmParams, PromptParams
from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.hub.linear import use_torch
from lever_plus.hub.loading import explained
from lever_plus.hub.threads import on_threads
from lever_plus.vlm.backends.weights import Weights
from lever_plus.vlm.engine.batch import BatchEngine
from lever_plus.vlm.engine.features import NotSeparableError
from lever_plus.vlm.engine.segments import Item, Segments
from lever_plus.vlm.prompt import PromptFormat, prompt_hash
from lever_plus.vlm.request import Done, Request, VlmIdentity, ignore, prefix_order
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.segments import KeptSegments
from lever_plus.vlm.usage import Usage

if TYPE_CHECKING:
    from lever_plus.vlm.engine.language import LanguageModel
    from lever_plus.vlm.engine.prefix import PrefixEngine

Result = TypeVar("Result")
IMAGE_BATCH = 96
"""How many images go through the vision tower in one pass."""
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


class HuggingFaceVlm:
    """A frozen VLM of the transformers library.

    On a CPU, several chunks of requests run at once, each in one thread: for small models that is
    faster than one forward pass on all threads, and the results do not depend on the number of
    threads. On a GPU one chunk runs at a time.
    """

    def __init__(
        self,
        path: str,
        params: HuggingFaceVlmParams,
        store: Store | None = None,
        store_megabytes: int = 0,
        weights: Weights | None = None,
    ) -> None:
        """Load the processor; the model is loaded when it is needed.

        Args:
            path: Hugging Face folder or hub id.
            params: Device, precision, prompt, decoding and batch size.
            store: The store that also keeps image features; None for nowhere.
            store_megabytes: Largest size of the image features in the store.
            weights: Processor and model, if another VLM has loaded them already.

        Raises:
            UserError: There is no such model, or its processor cannot be loaded.
        """
        self.params, self._path = params, path
        self.prompt = PromptFormat(params.prompt.style, params.prompt.instruction)
        self._weights = weights or Weights(path, params)
        self.processor = self._weights.processor
        with explained(path):  # renders prompts with its chat template
            rendering = prompt_hash(self.processor, self.prompt)
        self.identity = VlmIdentity(
            model=self._weights.name,
            revision=self._weights.revision,
            dtype=params.dtype,
            prompt_hash=rendering,
            generation=f"num_beams={params.num_beams}, max_new_tokens={params.max_new_tokens}",
        )
        self._store, self._store_megabytes = store, store_megabytes
        self._kept = KeptSegments(store, self.identity, store_megabytes) if store else None
        self.usage = Usage()
        self.engine: PrefixEngine | None = None
        self.why_plain = "" if params.prefix_reuse else "vlm.prefix_reuse is off"
        self._batch_tokens = params.batch_tokens
        self._tokens_each = 0
        self._lock = threading.Lock()

    @cached_property
    def model(self) -> Any:
        """The model; it is loaded when first used."""
        return self._weights.model

    @cached_property
    def plain(self) -> BatchEngine:
        """The engine that runs whole prompts."""
        return BatchEngine(self.model, self.processor, self.prompt)

    def instructed(self, instruction: str) -> "HuggingFaceVlm":
        """Return this VLM with another instruction; both share weights and usage.

        Raises:
            UserError: The instruction cannot be in a prompt.
        """
        prompt = PromptParams(style=self.prompt.style, instruction=instruction)
        params = self.params.model_copy(update={"prompt": prompt})
        other = HuggingFaceVlm(
            self._path, params, self._store, self._store_megabytes, self._weights
        )
        other.usage = self.usage
        return other

    def load(self, requests: Sequence[Request]) -> None:
        """Load the model, and find out with the first requests whether prefixes can be shared.

        `answers` and `log_likelihoods` call it; call it yourself before you measure their time.
        """
        if self._tokens_each or not requests:
            return
        tokens_each = self.plain.tokens(requests[0].query)
        if not self.why_plain:
            self._try(requests)
        self._tokens_each = tokens_each  # set last, so that a failed load is repeated

    def _try(self, requests: Sequence[Request]) -> None:
        """Use the prefix engine if its results equal those of whole prompts."""
        from lever_plus.vlm.engine.trial import examples_of, try_engine

        def segments(language: "LanguageModel", before: Example | None, keep: bool) -> Segments:
            return Segments(
                language,
                self.processor,
                self.prompt,
                IMAGE_BATCH,
                self._workers,
                self.params.segment_megabytes * 2**20,
                self._kept if keep else None,
                before,
            )

        tried = try_engine(self.model, self.plain, segments, examples_of(requests), self.usage)
        self.engine, self.why_plain = tried
        if self.engine is None:
            use_torch(self.model)  # whole prompts must run as in transformers
            self._say_plain()

    def answers(self, requests: Sequence[Request], done: Done[str] = ignore) -> list[str]:
        """Return the text generated for each request, by greedy decoding or beam search."""
        settings = self.params

        def decode(chunk: Sequence[Request]) -> list[str]:
            if self.engine is None or settings.num_beams > 1:
                ids = self.plain.generate(chunk, settings.max_new_tokens, settings.num_beams)
            else:
                ids = self.engine.generate(chunk, settings.max_new_tokens)
            return list(self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True))

        return self._run(requests, decode, done)

    def log_likelihoods(
        self, requests: Sequence[Request], done: Done[float] = ignore
    ) -> list[float]:
        """Return the mean log-probability of the tokens of each request's answer."""

        def score(chunk: Sequence[Request]) -> list[float]:
            return (self.engine or self.plain).log_likelihoods(chunk)

        return self._run(requests, score, done)

    def answer_alone(self, request: Request) -> str:
        """Answer one request with the processor and `generate` alone, to compare others with."""
        settings = self.params
        (ids,) = self.plain.generate([request], settings.max_new_tokens, settings.num_beams)
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True))

    @property
    def _workers(self) -> int:
        """How many chunks run at once; one is enough for a GPU."""
        return self.params.workers if self.params.device == "cpu" else 1

    def _say_plain(self) -> None:
        how = "prompts run whole, without prefix reuse (slower, same answers), because"
        warnings.warn(f"{type(self.model).__name__}: {how} {self.why_plain}.", stacklevel=3)

    def _run(
        self,
        requests: Sequence[Request],
        ask: Callable[[Sequence[Request]], list[Result]],
        done: Done[Result],
    ) -> list[Result]:
        """Ask all requests; after an example whose prompt can't be cut, run prompts whole."""
        self.load(requests)
        results: dict[int, Result] = {}
        try:
            self._ask_rest(requests, ask, done, results)
        except NotSeparableError as error:
            self.engine, self.why_plain = None, str(error)
            self._say_plain()
            self._ask_rest(requests, ask, done, results)
        return [results[i] for i in range(len(requests))]

    def _ask_rest(
        self,
        requests: Sequence[Request],
        ask: Callable[[Sequence[Request]], list[Result]],
        done: Done[Result],
        results: dict[int, Result],
    ) -> None:
        """Ask the requests missing in `results`, in prefix order, in chunks, on threads."""
        lacking = [i for i in range(len(requests)) if i not in results]
        order = [lacking[i] for i in prefix_order([requests[i] for i in lacking])]
        workers = self._workers if self.engine else 1
        one_each = on_threads(1) if workers > 1 else nullcontext()
        with one_each, ThreadPoolExecutor(workers) as pool:
            # A separate thread costs more than a small batch: a single worker runs in this thread.
            side_by_side: Any = pool.map if workers > 1 else map
            for stretch in self._stretches(requests, order):
                chunks = list(self._chunks(requests, stretch))
                parts = [[requests[i] for i in chunk] for chunk in chunks]
                answered = side_by_side(lambda part: self._ask(part, ask), parts)
                for chunk, answers in zip(chunks, answered, strict=True):
                    results.update(zip(chunk, answers, strict=True))
                    done(chunk, answers)

    def _stretches(self, requests: Sequence[Request], order: Sequence[int]) -> Iterator[list[int]]:
        """Cut the order into stretches whose segments fit into memory; make their segments."""
        if self.engine is None:
            yield list(order)
            return
        segments = self.engine.segments
        each = self._tokens_each * segments.token_bytes
        most = max(64, self.params.segment_megabytes * 2**20 // each)
        stretch: list[int] = []
        shown: set[Example] = set()
        asked: set[Item] = set()
        for i in order:
            request = requests[i]
            item = segments.item(request)
            more = sum(example not in shown for example in request.demonstrations)
            if stretch and len(shown) + len(asked) + more + (item not in asked) > most:
                segments.prepare(shown, asked)
                yield stretch
                stretch, shown, asked = [], set(), set()
            stretch.append(i)
            shown.update(request.demonstrations)
            asked.add(item)
        if stretch:
            segments.prepare(shown, asked)
            yield stretch

    def _chunks(self, requests: Sequence[Request], stretch: Sequence[int]) -> Iterator[list[int]]:
        """Cut a stretch into chunks of at most `batch_tokens` prompt tokens."""
        chunk: list[int] = []
        used = 0
        for i in stretch:
            cost = self._cost(requests[i])
            if chunk and used + cost > self._batch_tokens:
                yield chunk
                chunk, used = [], 0
            chunk.append(i)
            used += cost
        if chunk:
            yield chunk

    def _cost(self, request: Request) -> int:
        return self._tokens_each * (len(request.demonstrations) + 1)

    def _ask(
        self, chunk: Sequence[Request], ask: Callable[[Sequence[Request]], list[Result]]
    ) -> list[Result]:
        """Ask one chunk; if memory runs out, warn, halve the batch and try again."""
        cost = sum(map(self._cost, chunk))
        if len(chunk) > 1 and cost > self._batch_tokens:
            middle = len(chunk) // 2
            return self._ask(chunk[:middle], ask) + self._ask(chunk[middle:], ask)
        try:
            return ask(chunk)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _ran_out_of_memory(error):
                raise
            self._shrink(len(chunk), cost, error)
        return self._ask(chunk, ask)

    def _shrink(self, requests: int, cost: int, error: BaseException) -> None:
        if requests == 1:
            raise UserError(
                f"one prompt of about {cost} tokens does not fit into the memory of "
                f"{self.params.device}: use fewer shots, a smaller model or a dtype of fewer bits."
            ) from error
        with self._lock:
            self._batch_tokens = min(self._batch_tokens, max(1, cost // 2))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        message = f"out of memory: continuing with batches of {self._batch_tokens} tokens"
        warnings.warn(message, stacklevel=2)


def _ran_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in OUT_OF_MEMORY)
