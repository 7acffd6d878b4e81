"""Shared by the trainings of both models: their cards and their log."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tqdm import tqdm
from transformers import CLIPProcessor

from lever_plus.config.house_words import RecipeParams
from lever_plus.house_words.cards import Card, draw_card, render
from lever_plus.house_words.maker import split_scans
from lever_plus.tracking.history import History

PART: Final = 500
"""How many cards are rendered at once."""
LOSS_EVERY: Final = 10
"""The loss is logged every so many steps."""
LOOK_EVERY: Final = 100
"""What the model can do is measured and logged every so many steps."""


def draw_cards(params: RecipeParams, processor: CLIPProcessor) -> tuple[list[Card], torch.Tensor]:
    """Render training cards, from training scans only.

    Returns:
        The cards, and their pixel values from the processor, float [cards, 3, height, width].
    """
    rng = np.random.default_rng([params.seed, 100])
    scan_ids, count = split_scans()["train"], params.clip.cards
    cards = [draw_card(rng, scan_ids) for _ in range(count)]
    pixels = []
    # In parts, because all cards in full size would take gigabytes.
    for start in tqdm(range(0, count, PART), desc="cards", disable=None):
        part = cards[start : start + PART]
        images = [render(card, params.image_size, rng) for card in part]
        inputs = processor.image_processor(images=images, return_tensors="pt")
        pixels.append(inputs["pixel_values"])
    return cards, torch.cat(pixels)


@contextmanager
def logged(
    path: Path, steps: int, look: Callable[[], Mapping[str, float]] | None = None
) -> Iterator[Callable[[int, float], None]]:
    """Log a training to a file of JSON lines, and show a progress bar.

    Args:
        path: The file.
        steps: Number of steps of the training.
        look: Measures what the model can do so far, as {name: figure}.

    Yields:
        A function that the training calls with (step, loss) after each step.
    """
    with (
        tqdm(total=steps, desc=path.stem, disable=None) as bar,
        History(path, bar.set_postfix) as history,
    ):

        def on_step(step: int, loss: float) -> None:
            bar.update()
            last = step == steps - 1
            if last or step % LOSS_EVERY == 0:
                seen = look() if look and (last or step % LOOK_EVERY == 0) else {}
                history.write({"step": step, "loss": loss, **seen})

        yield on_step
