"""Speed of the scoring engine, compared with a naive loop and plain batching in the same run.

    naive         for each request, one call of the processor and of `generate` (or forward)
    batched       whole prompts in padded batches, nothing is shared
    engine        this project's engine with an empty store: no answers or image features are kept
    images_kept   the engine when the store already has the image features, as in the pipeline
    full_store    the same requests again, when the store has every answer
Models are loaded before the clock starts; everything else counts, including reading images. The
naive loop runs with one torch thread and with all; the faster run counts.
There are two workloads. RL data: 200 queries, each with 12 pointers of four demonstrations, at
shots 1-4. InfoScore: searches with beam 5 and two shots for 20 queries. Pointers are drawn
uniformly, so few prefixes are shared by chance.
"""

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from lever_plus.bench.memory import peak_rss_mb
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.data.examples import Example, Query, by_id, read_splits
from lever_plus.data.pools import Pools, read_pools
from lever_plus.errors import UserError
from lever_plus.hub.threads import on_threads
from lever_plus.pipeline.paths import Paths
from lever_plus.selectors.infoscore import beam_search
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.engine.features import Features, features_of, padded
from lever_plus.vlm.engine.prefix import PrefixEngine
from lever_plus.vlm.engine.segments import Item
from lever_plus.vlm.prompt import extract_answer
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.cached import StoredVlm

RL_QUERIES: Final = 200
POINTERS: Final = 12
SHOTS: Final = 4
INFO_QUERIES: Final = 20
NAIVE_SAMPLE: Final = 300
FEATURES_MB: Final = 1024
LARGEST_DIFFERENCE: Final = 1e-4
Figures = dict[str, float | int]
Ask = Callable[[Sequence[Request]], list[Any]]


class Bench:
    """The embedded VLM, its examples, and the requests of both workloads."""

    def __init__(self, params: Params) -> None:
        """Read the examples and pools that the pipeline made.

        Raises:
            UserError: The VLM is a server, or a stage has not run yet.
        """
        if not isinstance(params.vlm, HuggingFaceVlmParams):
            raise UserError(
                "bench scoring measures a VLM on this machine: set vlm.kind to huggingface."
            )
        self.settings = params.vlm
        paths = Paths()
        self.path = params.vlm.path
        self.splits = read_splits(paths.prepare)
        self.examples: Mapping[int, Example] = by_id(self.splits)
        self.pools: Pools = read_pools(paths.pools)

    def vlm(self, store: Store | None = None, **changes: object) -> HuggingFaceVlm:
        """Return the VLM with some changed settings, already loaded."""
        settings = self.settings.model_copy(update=changes)
        vlm = HuggingFaceVlm(self.path, settings, store, FEATURES_MB)
        vlm.load(self.rl_data(1))  # loads the weights and checks the engine
        return vlm

    def rl_data(self, queries: int) -> list[Request]:
        """Return the requests of the RL-data workload, including repeats."""
        rng, requests = np.random.default_rng(0), []
        for query in list(self.pools.ids)[:queries]:
            pool, asked = np.array(self.pools.of(query)), self.examples[query].query
            for _ in range(POINTERS):
                drawn = rng.choice(pool, SHOTS, replace=False)
                pointer = tuple(self.examples[int(i)] for i in drawn)
                requests += [Request(pointer[:shot], asked) for shot in range(1, SHOTS + 1)]
        return requests

    def info_score(self, queries: int) -> list[Request]:
        """Return the requests of an InfoScore search."""
        asked: list[Request] = []

        class Recorder(StoredVlm):
            def log_likelihoods(
                self, requests: Sequence[Request], *, description: str = ""
            ) -> list[float]:
                asked.extend(requests)
                return super().log_likelihoods(requests, description=description)

        beam_search(Recorder(self.vlm(), None), *self.searched(queries), shots=2, beam=5)
        return asked

    def searched(self, queries: int) -> tuple[list[tuple[Query, str]], list[list[Example]]]:
        """Return the queries of an InfoScore search with their answers, and their pools."""
        ids = list(self.pools.ids)[:queries]
        asked = [(self.examples[i].query, self.examples[i].answer) for i in ids]
        return asked, [[self.examples[i] for i in self.pools.of(query)] for query in ids]


def run(params: Params, *, ablate: bool = False) -> dict[str, Figures]:
    """Return the figures of both workloads.

    Args:
        params: Parameters of the pipeline.
        ablate: Whether to also measure the RL-data workload with parts of the engine turned off.
    """
    bench = Bench(params)
    requests = bench.rl_data(RL_QUERIES)
    measured = {
        "rl_data": _workload(bench, requests, "answers"),
        "info_score": _workload(bench, bench.info_score(INFO_QUERIES), "log_likelihoods"),
    }
    for workload, queries in (("rl_data", RL_QUERIES), ("info_score", INFO_QUERIES)):
        peaks = [_peak(workload, count) for count in (queries, 10 * queries)]
        growth = round(peaks[1] / peaks[0], 3)
        measured[workload] |= {"peak_rss_mb": peaks[0], "peak_rss_10x_queries": growth}
    if ablate:
        measured["ablation"] = _ablation(bench, requests)
    return measured


def _workload(bench: Bench, requests: Sequence[Request], kind: str) -> Figures:
    distinct = list(dict.fromkeys(requests))
    sample = random.Random(0).sample(distinct, min(NAIVE_SAMPLE, len(distinct)))
    plain = bench.vlm(prefix_reuse=False)
    naive, expected = naive_rate(plain, kind, sample)
    batched, _ = rate_of(getattr(plain, kind), distinct)
    with TemporaryDirectory() as folder:
        cold, full, values = _engine(bench, kind, requests, Path(folder) / "cold.sqlite")
        kept = Store(Path(folder) / "kept.sqlite")
        getattr(bench.vlm(kept), kind)(distinct)
        images_kept, _ = rate_of(getattr(StoredVlm(bench.vlm(kept), kept), kind), requests)
    answers = dict(zip(requests, values, strict=True))
    same = [_same(answers[r], value) for r, value in zip(sample, expected, strict=True)]
    return {
        "requests": len(requests),
        "distinct": len(distinct),
        "naive_per_s": round(naive, 1),
        "batched_per_s": round(batched, 1),
        "engine_per_s": round(cold),
        "images_kept_per_s": round(images_kept),
        "full_store_per_s": round(full),
        "speedup_vs_naive": round(cold / naive, 2),
        "speedup_vs_batched": round(cold / batched, 2),
        "speedup_vs_naive_images_kept": round(images_kept / naive, 2),
        "answers_equal": sum(same) / len(same),
    }


def naive_rate(
    vlm: HuggingFaceVlm, kind: str, sample: Sequence[Request]
) -> tuple[float, list[Any]]:
    """Return the naive loop's requests per second, and its values.

    The loop runs with one torch thread and with all; the faster run counts.

    Args:
        vlm: The VLM, loaded.
        kind: "answers" or "log_likelihoods".
        sample: The requests.
    """

    def ask(requests: Sequence[Request]) -> list[Any]:
        if kind == "answers":
            style = vlm.prompt.style
            return [extract_answer(vlm.answer_alone(request), style) for request in requests]
        return [vlm.plain.log_likelihoods([request])[0] for request in requests]

    with on_threads(1):
        one, values = rate_of(ask, sample)
    return max(one, rate_of(ask, sample)[0]), values


def _engine(
    bench: Bench, kind: str, requests: Sequence[Request], path: Path
) -> tuple[float, float, list[Any]]:
    """Return requests per second with an empty and with a full store, and the values."""
    store = Store(path)
    cold, values = rate_of(getattr(StoredVlm(bench.vlm(store), store), kind), requests)
    full, again = rate_of(getattr(StoredVlm(bench.vlm(store), store), kind), requests)
    if again != values:
        raise UserError(
            "the answer store returned other values than were put in: please report this."
        )
    return cold, full, values


def rate_of(ask: Ask, requests: Sequence[Request]) -> tuple[float, list[Any]]:
    """Return the requests per second, and the values."""
    begun = time.perf_counter()
    values = ask(requests)
    return len(requests) / (time.perf_counter() - begun), values


def _same(value: str | float, expected: str | float) -> bool:
    if isinstance(value, float) and isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=0, abs_tol=LARGEST_DIFFERENCE)
    return value == expected


def _ablation(bench: Bench, requests: Sequence[Request]) -> Figures:
    """Return the engine's requests per second with image features kept, and without each part."""
    distinct = list(dict.fromkeys(requests))

    def warm(vlm: HuggingFaceVlm) -> HuggingFaceVlm:
        assert vlm.engine is not None
        shown = {example for request in distinct for example in request.demonstrations}
        vlm.engine.segments.prepare(shown, {Item(r.query, r.answer) for r in distinct})
        return vlm

    vlm = warm(bench.vlm())
    figures: Figures = {"all": round(rate_of(vlm.answers, distinct)[0])}
    figures["one worker on all threads"] = round(
        rate_of(warm(bench.vlm(workers=1)).answers, distinct)[0]
    )
    whole = warm(bench.vlm())
    assert whole.engine is not None
    whole.engine = WholePrompts(whole.engine.language, whole.engine.segments, whole.usage)
    figures["prefixes not shared"] = round(rate_of(whole.answers, distinct)[0])
    figures["image features not kept"] = round(rate_of(bench.vlm().answers, distinct)[0])
    sample = random.Random(1).sample(distinct, 1000)
    plain = bench.vlm(prefix_reuse=False)
    figures["nothing shared (batched)"] = round(rate_of(plain.answers, sample)[0], 1)
    return figures


class WholePrompts(PrefixEngine):
    """Runs every prompt as one segment: embeddings are shared, prefixes are not."""

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], max_new_tokens: int) -> list[list[int]]:
        """Return the generated token ids of each request."""
        table = self.segments.table
        prompts = []
        for request in requests:
            shown = [int(row) for row in self.segments.shown(request.demonstrations)]
            asked = int(self.segments.asked([request])[0])
            ends = [*table.lengths[shown].tolist(), int(table.queries[asked])]
            prompts.append(_chained(table.features, [*shown, asked], ends))
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts])
        rows_of_root = torch.zeros(len(prompts), dtype=torch.long)
        logits, cache = self.language.run(
            self._root, rows_of_root, padded(prompts), lengths, at=lengths[:, None] - 1
        )
        return self._decode(logits[:, 0], cache, max_new_tokens)


def _chained(table: Features, rows: Sequence[int], lengths: Sequence[int]) -> Features:
    """Return the first tokens of some rows, joined one after another."""
    parts, after = [], 0
    for row, length in zip(rows, lengths, strict=True):
        part = table.each(lambda values, row=row: values[row]).cut(0, length)  # type: ignore[misc]
        parts.append(part._replace(positions=part.positions + after).tensors())
        after += int(part.positions.max()) + 1
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return features_of(joined, table.packed)


def _peak(workload: str, queries: int) -> int:
    """Return the peak memory in MB of a process that scores a workload of `queries` queries."""
    command = [sys.executable, "-m", "lever_plus.bench.scoring", workload, str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.strip().splitlines()[-1]))


def _score(workload: str, queries: int) -> int:
    from lever_plus.config.file import load_params

    bench = Bench(load_params())
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.sqlite")
        vlm = StoredVlm(bench.vlm(store), store)
        if workload == "rl_data":
            vlm.answers(bench.rl_data(queries))
        else:
            beam_search(vlm, *bench.searched(queries), shots=2, beam=5)
    return peak_rss_mb()


if __name__ == "__main__":
    print(_score(sys.argv[1], int(sys.argv[2])))  # noqa: T201
