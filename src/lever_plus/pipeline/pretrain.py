"""Stage pretrain: the embedded world's cards -> tiny CLIP and tiny VLM as Hugging Face folders."""

import shutil
from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm
from transformers import CLIPModel, CLIPProcessor

from lever_plus.config.params import Params
from lever_plus.data.examples import read_splits
from lever_plus.house_words import clip as tiny_clip
from lever_plus.house_words import vlm as tiny_vlm
from lever_plus.house_words.cards import Card, draw_card, render
from lever_plus.house_words.maker import read_meanings, split_scans
from lever_plus.house_words.probe import in_context_table
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.vlm import open_vlm

PART = 500


def run(params: Params) -> Outcome:
    """Train both models and measure what the VLM reads from demonstrations."""
    source = params.data.source
    if not params.needs_pretraining or source.kind != "embedded":
        return Outcome(_skip())
    use_threads(params.threads)
    torch.manual_seed(params.seed)
    processor = tiny_clip.make_processor()
    cards, pixels = _draw(params, processor, source.image_size)
    clip = _train_clip(params, processor, cards, pixels)
    _train_vlm(params, clip, processor, cards, pixels)
    splits = read_splits(paths.PREPARE)
    table = in_context_table(
        open_vlm(params, splits),
        splits["dev"],
        splits["train"],
        read_meanings(paths.SOURCE),
        params.pretrain.probes,
        params.seed,
    )
    write_metrics(paths.METRICS / "pretrain.json", {"share_right": table})
    rows = "\n".join(f"  {rule:<22} {share:6.1%}" for rule, share in table.items())
    return Outcome(f"share of right answers of the tiny VLM by demonstration rule:\n{rows}")


def _skip() -> str:
    """Leave the outputs empty: params.yaml names models of its own."""
    shutil.rmtree(paths.CLIP.parent, ignore_errors=True)
    paths.CLIP.parent.mkdir(parents=True)
    write_metrics(paths.METRICS / "pretrain.json", {})
    return "nothing to do, params.yaml names a VLM and an encoder"


def _draw(
    params: Params, processor: CLIPProcessor, image_size: int
) -> tuple[list[Card], torch.Tensor]:
    """Render training cards, from training scans only, as the processor's pixel values."""
    rng = np.random.default_rng([params.seed, 100])
    scan_ids, count = split_scans(params.seed)["train"], params.pretrain.clip.cards
    cards = [draw_card(rng, scan_ids) for _ in range(count)]
    pixels = []
    # In parts: all cards at their full size would take gigabytes.
    for start in tqdm(range(0, count, PART), desc="cards", disable=None):
        part = cards[start : start + PART]
        images = [render(card, image_size, rng) for card in part]
        inputs = processor.image_processor(images=images, return_tensors="pt")
        pixels.append(inputs["pixel_values"])
    return cards, torch.cat(pixels)


def _train_clip(
    params: Params, processor: CLIPProcessor, cards: list[Card], pixels: torch.Tensor
) -> CLIPModel:
    settings = params.pretrain.clip
    model = tiny_clip.make_model(settings, processor)
    with tqdm(total=settings.steps, desc="tiny CLIP", disable=None) as bar:
        data = (cards, pixels)
        tiny_clip.train(model, processor, data, settings, params.seed, _show(bar))
    model.save_pretrained(paths.CLIP)
    processor.save_pretrained(paths.CLIP)
    model.eval()
    return model


def _train_vlm(
    params: Params,
    clip: CLIPModel,
    clip_processor: CLIPProcessor,
    cards: list[Card],
    pixels: torch.Tensor,
) -> None:
    settings = params.pretrain.vlm
    processor = tiny_vlm.make_processor(clip_processor, tiny_clip.PATCH_SIZE)
    model = tiny_vlm.make_model(settings, clip, processor)
    trainer = tiny_vlm.Trainer(model, processor, cards, tiny_vlm.patch_features(clip, pixels))
    with tqdm(total=settings.plain_steps + settings.steps, desc="tiny VLM", disable=None) as bar:
        trainer.train(settings, params.seed, _show(bar))
    model.save_pretrained(paths.VLM)
    processor.save_pretrained(paths.VLM)


def _show(bar: "tqdm[None]") -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        bar.update()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss:.3f}")

    return on_step
