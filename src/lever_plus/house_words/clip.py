"""The tiny CLIP of the embedded world, trained contrastively on image-caption pairs.

Loss: symmetric InfoNCE over the batch (Radford et al. 2021, "Learning Transferable Visual Models
From Natural Language Supervision", figure 3), as implemented by `CLIPModel`.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lever_plus.config.house_words import ClipPretrainParams
from lever_plus.house_words.cards import Card
from lever_plus.house_words.optim import warmup_cosine
from lever_plus.house_words.tokenizer import make_tokenizer
from lever_plus.house_words.words import LANGUAGES, VALUES

IMAGE_SIZE: Final = 32
PATCH_SIZE: Final = 16
CAPTIONS: Final = (
    "a {ink} {digit} on {pattern} paper at the {corner}",
    "{pattern} card with {digit} at {corner} {ink} ink",
    "{corner} {digit} {ink} {pattern}",
)
TOKEN_STD: Final = 1.0
"""Standard deviation of initial token embeddings. Words that are in no caption (house words) are
never trained, so they keep these random codes; with CLIP's 0.02 they would be far smaller than the
position embeddings."""


def make_processor() -> CLIPProcessor:
    """Return the processor: PIL image processor (no torchvision needed) and word tokenizer."""
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    return CLIPProcessor(image_processor=images, tokenizer=make_tokenizer(sentence_marks=True))


def make_model(params: ClipPretrainParams, processor: CLIPProcessor) -> CLIPModel:
    """Return an untrained CLIP of the sizes in `params`."""
    tokenizer = processor.tokenizer
    text = {
        **_tower(params.width, params.text_layers, params.projection),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        **_tower(params.vision_width, params.vision_layers, params.projection),
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=params.projection)
    model = CLIPModel(config)
    torch.nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=TOKEN_STD)
    return model


def _tower(width: int, layers: int, projection: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "projection_dim": projection,
    }


def caption(card: Card, rng: np.random.Generator) -> str:
    """Describe all four values of a card in one random language."""
    language = str(rng.choice(LANGUAGES))
    words = {a: VALUES[a][language][card.value(a)] for a in VALUES}
    return str(rng.choice(CAPTIONS)).format(**words)


def train(
    model: CLIPModel,
    processor: CLIPProcessor,
    data: tuple[Sequence[Card], Tensor],
    params: ClipPretrainParams,
    seed: int,
    on_step: Callable[[int, float], None],
) -> None:
    """Train on image-caption pairs.

    Every second batch consists of groups of cards that differ only in the digit. Random cards are
    nearly always told apart by the other three values, so digits would be learned last.

    Args:
        model: The model; it is trained in place.
        processor: Tokenizes the captions.
        data: The cards and their pixel values, float [cards, 3, IMAGE_SIZE, IMAGE_SIZE].
        params: Number of steps, learning rate, batch size.
        seed: Seed of the batches and of the captions' wording.
        on_step: Called with (step, loss) after each step.
    """
    cards, pixels = data
    rng = np.random.default_rng([seed, 101])
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, weight_decay=0.05)
    schedule = warmup_cosine(optimizer, params.steps, params.steps // 10)
    for step in range(params.steps):
        rows = _hard_batch(rng, cards, params) if step % 2 else _batch(rng, cards, params)
        text = processor.tokenizer(
            [caption(cards[row], rng) for row in rows], padding=True, return_tensors="pt"
        )
        loss = model(**text, pixel_values=pixels[rows], return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step, loss.item())


def _batch(
    rng: np.random.Generator, cards: Sequence[Card], params: ClipPretrainParams
) -> NDArray[np.int64]:
    return rng.choice(len(cards), params.batch_size, replace=False)


def _hard_batch(
    rng: np.random.Generator, cards: Sequence[Card], params: ClipPretrainParams
) -> NDArray[np.int64]:
    groups: dict[tuple[int, int, int], list[int]] = {}
    for row, card in enumerate(cards):
        groups.setdefault((card.ink, card.pattern, card.corner), []).append(row)
    members = list(groups.values())
    chosen = rng.choice(len(members), min(params.hard_groups, len(members)), replace=False)
    size = max(2, params.batch_size // params.hard_groups)
    return np.concatenate([rng.permutation(members[i])[:size] for i in chosen])
