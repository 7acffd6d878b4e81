"""Speed of the scoring engine on a VLM of a real model's size, compared with the machine's limit.

With a tiny VLM most time goes into function calls, with a real one into arithmetic. So this
benchmark makes a LLaVA with a real model's dimensions and random weights, and runs the RL-data
workload of `bench.scoring` on it: naive loop, plain batches, engine. Two figures count: how many
tokens are run, compared with the least that the workload needs; and how many operations are done
per second, compared with the same matrix products alone, which are timed before and after.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import torch
from torch.nn import functional

from lever_plus.bench.scoring import Bench, Figures, naive_rate, rate_of
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.errors import UserError
from lever_plus.files.json_files import read_object
from lever_plus.files.names import SHIPPED
from lever_plus.files.writing import write_json
from lever_plus.hub.loading import load_processor
from lever_plus.hub.threads import on_threads
from lever_plus.vlm.backends.huggingface import HuggingFaceVlm
from lever_plus.vlm.lengths import Lengths
from lever_plus.vlm.request import Request
from lever_plus.vlm.store.answers import Store

DTYPES: Final = ("float32", "bfloat16")
QUERIES: Final = 3
SAMPLE: Final = 24
"""Number of requests for the naive loop and plain batches, which are slow."""
BATCH_TOKENS: Final = 4096
HEAD: Final = 1
"""Number of tokens before the first turn of a shipped VLM's prompt; all requests share them."""
REPEATS: Final = 5


class Size(NamedTuple):
    """Dimensions of a language model and of its vision tower, a CLIP ViT."""

    width: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    image: int
    patch: int

    @property
    def products(self) -> list[tuple[int, int]]:
        """Shapes of a language-model layer's matrices by which every token is multiplied."""
        keys = self.width // self.heads * self.kv_heads
        attention = [(self.width, self.width + 2 * keys), (self.width, self.width)]
        return [*attention, (self.width, 2 * self.mlp), (self.mlp, self.width)]

    @property
    def operations(self) -> int:
        """Floating-point operations per token in these products, over all layers."""
        return 2 * self.layers * sum(rows * columns for rows, columns in self.products)


SIZES: Final = {"135m": Size(576, 1536, 30, 9, 3, 49_152, 768, 12, 12, 224, 32)}
"""135m has the language model of SmolLM2-135M and the vision tower of CLIP ViT-B/32."""


def run(params: Params, size: str) -> dict[str, Figures]:
    """Return the figures of a size in every precision.

    Raises:
        UserError: There is no such size, the VLM is a server, or a stage has not run yet.
    """
    if size not in SIZES:
        raise UserError(f"there is no size {size!r}: choose from {', '.join(SIZES)}.")
    with TemporaryDirectory() as folder:
        make_checkpoint(SIZES[size], Path(folder))
        return {dtype: measure(params, SIZES[size], Path(folder), dtype) for dtype in DTYPES}


def make_checkpoint(size: Size, folder: Path) -> None:
    """Write a LLaVA with random weights in bfloat16; it reads prompts like a shipped VLM."""
    import transformers as hf

    processor = load_processor(f"{SHIPPED}vlm", None)
    image_processor, tokenizer = processor.image_processor, processor.tokenizer
    image_processor.size = {"shortest_edge": size.image}
    image_processor.crop_size = {"height": size.image, "width": size.image}
    processor.patch_size = size.patch
    ids = {name: getattr(tokenizer, f"{name}_id") for name in ("bos_token", "eos_token")}
    vision = hf.CLIPVisionConfig(
        hidden_size=size.vision_width,
        intermediate_size=4 * size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_heads,
        image_size=size.image,
        patch_size=size.patch,
    )
    text = hf.LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        **ids,
    )
    torch.manual_seed(0)
    model = hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(processor.image_token),
            vision_feature_select_strategy="default",
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)
    _add_words(folder / "tokenizer.json", size.vocabulary)


def _add_words(path: Path, count: int) -> None:
    """Give every token id that the model may generate a word, so that answers can be compared."""
    content = read_object(path, "please report this")
    words = content["model"]["vocab"]
    words |= {f"word{number}": number for number in range(len(words), count)}
    write_json(path, content)


def measure(params: Params, size: Size, folder: Path, dtype: str) -> Figures:
    """Return the figures of a checkpoint in one precision.

    Args:
        params: Parameters of the pipeline, whose examples and pools are used.
        size: Dimensions of the checkpoint.
        folder: Folder of the checkpoint.
        dtype: Precision, one of `DTYPES`.

    Raises:
        UserError: The VLM of `params` is a server, or a stage has not run yet.
    """
    if not isinstance(params.vlm, HuggingFaceVlmParams):
        raise UserError(
            "bench scoring measures a VLM on this machine: set vlm.kind to huggingface."
        )
    changes = {"path": str(folder), "revision": None, "device": "cpu", "dtype": dtype}
    how = {"max_new_tokens": 1, "num_beams": 1, "batch_tokens": BATCH_TOKENS, "prefix_reuse": True}
    vlm = params.vlm.model_copy(update=changes | how)
    bench = Bench(params.model_copy(update={"vlm": vlm}))
    requests = list(dict.fromkeys(bench.rl_data(QUERIES)))
    sample = random.Random(0).sample(requests, min(SAMPLE, len(requests)))
    before = products_rate(size, dtype, vlm.workers)
    plain = bench.vlm(prefix_reuse=False)
    naive, expected = naive_rate(plain, "answers", sample)
    batched, _ = rate_of(plain.answers, sample)
    with TemporaryDirectory() as kept:
        store = Store(Path(kept) / "store.sqlite")
        engine, answers = rate_of(bench.vlm(store).answers, requests)
        warm = bench.vlm(store)  # finds the image features in the store
        images_kept, _ = rate_of(warm.answers, requests)
    products = max(before, products_rate(size, dtype, vlm.workers))
    said = dict(zip(requests, answers, strict=True))
    run, least = warm.usage.tokens_run, least_tokens(plain, requests)
    prefill = run * size.operations / (len(requests) / images_kept)
    return {
        "requests": len(requests),
        "naive_per_s": round(naive, 2),
        "batched_per_s": round(batched, 2),
        "engine_per_s": round(engine, 2),
        "images_kept_per_s": round(images_kept, 2),
        "speedup_vs_naive": round(engine / naive, 2),
        "speedup_vs_batched": round(engine / batched, 2),
        "answers_equal": sum(said[r] == e for r, e in zip(sample, expected, strict=True))
        / len(sample),
        "prefixes_shared": int(warm.engine is not None),
        "tokens_whole": warm.usage.tokens_whole,
        "tokens_run": run,
        "tokens_least": least,
        "tokens_run_to_least": round(run / least, 3),
        "products_gflop_per_s": round(products / 1e9, 1),
        "prefill_gflop_per_s": round(prefill / 1e9, 1),
        "prefill_to_products": round(prefill / products, 3),
    }


def products_rate(size: Size, dtype: str, threads: int) -> float:
    """Return the operations per second of a layer's matrix products alone, best of `REPEATS`."""
    kind = getattr(torch, dtype)
    pairs = [
        (torch.randn(BATCH_TOKENS, rows).to(kind), torch.randn(columns, rows).to(kind))
        for rows, columns in size.products
    ]
    seconds = []
    with on_threads(threads), torch.inference_mode():
        for _ in range(REPEATS):
            begun = time.perf_counter()
            for tokens, weights in pairs:
                functional.linear(tokens, weights)
            seconds.append(time.perf_counter() - begun)
    return BATCH_TOKENS * size.operations / size.layers / min(seconds)


def least_tokens(vlm: HuggingFaceVlm, requests: Sequence[Request]) -> int:
    """Return how many tokens are run if every distinct prefix and every query is run only once.

    Raises:
        UserError: The length of a prompt is not the sum of the lengths of its parts.
    """
    beginnings: dict[Any, Request] = {}
    for request in requests:
        shown = request.demonstrations
        for depth in range(1, len(shown) + 1):
            beginnings.setdefault(shown[:depth], Request(shown[depth - 1 : depth], request.query))
    alone = [Request((), request.query) for request in requests]
    before = [Request((), request.query) for request in beginnings.values()]
    lengths = Lengths(vlm.processor, vlm.prompt)
    counts = [lengths.of(each) for each in (list(beginnings.values()), before, alone)]
    if None in counts:
        raise UserError(
            "the least number of tokens is not known for this model: its prompts are not the sum "
            "of their parts."
        )
    with_one, without, asked = (sum(count or ()) for count in counts)
    return with_one - without + asked - HEAD * len(requests)
