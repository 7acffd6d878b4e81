"""Stage pretrain: the embedded world's cards -> tiny CLIP and tiny VLM as Hugging Face folders."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm
from transformers import CLIPModel, CLIPProcessor

from lever_plus.config.base import Count, Section
from lever_plus.config.data import EmbeddedSource, VqaFilesSource
from lever_plus.config.house_words import PretrainParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams, needs_pretraining
from lever_plus.data.examples import read_splits
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words import clip as tiny_clip
from lever_plus.house_words import vlm as tiny_vlm
from lever_plus.house_words.cards import Card, draw_card, render
from lever_plus.house_words.maker import read_meanings, split_scans
from lever_plus.house_words.probe import in_context_table
from lever_plus.hub.threads import use_threads
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.vlm import open_vlm

PART = 500


class Settings(Section):
    """What the stage reads of params.yaml; a server has no `vlm.path`."""

    seed: int
    threads: Count
    pretrain: PretrainParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    encoder: Annotated[str | None, From("embed.path")]
    source: Annotated[EmbeddedSource | VqaFilesSource, From("data.source")]


def run(settings: Settings, paths: Paths) -> Outcome:
    """Train both models and measure what the VLM reads from demonstrations."""
    source = settings.source
    needed = needs_pretraining(settings.vlm, settings.encoder)
    if not needed or not isinstance(source, EmbeddedSource):
        return Outcome(_skip(paths))
    use_threads(settings.threads)
    torch.manual_seed(settings.seed)
    processor = tiny_clip.make_processor()
    cards, pixels = _draw(settings, processor, source.image_size)
    # Together: a VLM sees with the CLIP that was trained before it.
    with replacing_folders([paths.of("pretrain")]) as (fresh,):
        made = replace(paths, moved={**paths.moved, "pretrain": fresh})
        clip = _train_clip(settings, made, processor, cards, pixels)
        _train_vlm(settings, made, clip, processor, cards, pixels)
    splits = read_splits(paths.prepare, paths.root)
    table = in_context_table(
        open_vlm(settings.vlm, settings.scoring, paths),
        splits["dev"],
        splits["train"],
        read_meanings(paths.source),
        settings.pretrain.probes,
        settings.seed,
    )
    write_metrics(paths.metrics / "pretrain.json", {"share_right": table})
    rows = "\n".join(f"  {rule:<22} {share:6.1%}" for rule, share in table.items())
    return Outcome(f"share of right answers of the tiny VLM by demonstration rule:\n{rows}")


def _skip(paths: Paths) -> str:
    """Leave the outputs empty: params.yaml names models of its own."""
    with replacing_folders([paths.of("pretrain")]):
        pass
    write_metrics(paths.metrics / "pretrain.json", {})
    return "nothing to do, params.yaml names a VLM and an encoder"


def _draw(
    settings: Settings, processor: CLIPProcessor, image_size: int
) -> tuple[list[Card], torch.Tensor]:
    """Render training cards, from training scans only, as the processor's pixel values."""
    rng = np.random.default_rng([settings.seed, 100])
    scan_ids, count = split_scans(settings.seed)["train"], settings.pretrain.clip.cards
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
    settings: Settings,
    paths: Paths,
    processor: CLIPProcessor,
    cards: list[Card],
    pixels: torch.Tensor,
) -> CLIPModel:
    params = settings.pretrain.clip
    model = tiny_clip.make_model(params, processor)
    with tqdm(total=params.steps, desc="tiny CLIP", disable=None) as bar:
        data = (cards, pixels)
        tiny_clip.train(model, processor, data, params, settings.seed, _show(bar))
    model.save_pretrained(paths.clip)
    processor.save_pretrained(paths.clip)
    model.eval()
    return model


def _train_vlm(
    settings: Settings,
    paths: Paths,
    clip: CLIPModel,
    clip_processor: CLIPProcessor,
    cards: list[Card],
    pixels: torch.Tensor,
) -> None:
    params = settings.pretrain.vlm
    processor = tiny_vlm.make_processor(clip_processor, tiny_clip.PATCH_SIZE)
    model = tiny_vlm.make_model(params, clip, processor)
    trainer = tiny_vlm.Trainer(model, processor, cards, tiny_vlm.patch_features(clip, pixels))
    with tqdm(total=params.plain_steps + params.steps, desc="tiny VLM", disable=None) as bar:
        trainer.train(params, settings.seed, _show(bar))
    model.save_pretrained(paths.vlm)
    processor.save_pretrained(paths.vlm)


def _show(bar: "tqdm[None]") -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        bar.update()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss:.3f}")

    return on_step
