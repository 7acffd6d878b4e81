"""The tiny VLM of the embedded world: `LlavaForConditionalGeneration` with the tiny CLIP's vision.

Architecture: Liu et al. 2023, "Visual Instruction Tuning". It is trained first on plain VQA, then
on few-shot episodes whose house words have new meanings each time (`episodes.py`). The vision tower
is frozen, so its features are computed once per card.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CLIPModel,
    CLIPProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from lever_plus.config.house_words import VlmPretrainParams
from lever_plus.house_words.cards import Card
from lever_plus.house_words.episodes import Item, Kind, KindShares, episode, plain_item
from lever_plus.house_words.optim import warmup_cosine
from lever_plus.house_words.tokenizer import ASSISTANT, EOS, IMAGE, USER, make_tokenizer
from lever_plus.hub.folder import WEIGHTS
from lever_plus.vlm.prompt import render

FEATURE_LAYER: Final = -2
"""The hidden layer of CLIP whose patch features are used, as in LLaVA: the patch states of the last
layer get no gradient in CLIP's training, which uses only the pooled output."""
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{% else %}" + ASSISTANT + "{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGE + "{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}" + EOS + "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def make_processor(clip: CLIPProcessor, patch_size: int) -> LlavaProcessor:
    """Return a processor: CLIP's image processor, the word tokenizer and the chat template."""
    return LlavaProcessor(
        image_processor=clip.image_processor,
        tokenizer=make_tokenizer(sentence_marks=False),
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(
    params: VlmPretrainParams, clip: CLIPModel, processor: LlavaProcessor
) -> LlavaForConditionalGeneration:
    """Return an untrained VLM with the frozen vision weights of the CLIP."""
    tokenizer = processor.tokenizer
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.width,
        intermediate_size=params.mlp_width,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        initializer_range=0.1,  # about 1 / sqrt(width); 0.02 needs four times the steps
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=clip.config.vision_config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict(), strict=True)
    model.model.vision_tower.requires_grad_(False)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Save the VLM in float16, with the key names of published LLaVA checkpoints.

    transformers loads these and its own names; vLLM loads only the published ones.
    """
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    published = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1): tensor
        for name, tensor in weights.items()
    }
    save_file(published, folder / WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def patch_features(clip: CLIPModel, pixel_values: Tensor, batch_size: int = 512) -> Tensor:
    """Return the inputs of LLaVA's projector, float [images, patches, width]."""
    states = [
        clip.vision_model(part, output_hidden_states=True).hidden_states[FEATURE_LAYER][:, 1:]
        for part in pixel_values.split(batch_size)
    ]
    return torch.cat(states)


class Trainer:
    """Trains the projector and the language model on vision features computed before."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        processor: LlavaProcessor,
        cards: Sequence[Card],
        features: Tensor,
    ) -> None:
        """Take the model, the cards and their vision features, float [cards, patches, width]."""
        self.model, self.processor, self.cards, self.features = model, processor, cards, features

    def train(
        self, params: VlmPretrainParams, seed: int, on_step: Callable[[int, float], None]
    ) -> None:
        """Run all steps: first plain VQA, then episodes; call `on_step(step, loss)` after each."""
        rng = np.random.default_rng([seed, 200])
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=params.learning_rate, weight_decay=0.01)
        schedule = warmup_cosine(optimizer, params.plain_steps + params.steps, params.warmup)
        for step in range(params.plain_steps + params.steps):
            loss = self.loss(self._draw(rng, params, step - params.plain_steps))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            on_step(step, loss.item())

    def _draw(
        self, rng: np.random.Generator, params: VlmPretrainParams, step: int
    ) -> list[list[Item]]:
        """Draw the batch of a step; steps of plain VQA have negative numbers."""
        if step < 0:
            return [[plain_item(rng, self.cards)] for _ in range(params.batch_size * 3)]
        other = params.other_share if step >= params.other_from else 0.0
        shares = KindShares(half=params.half_share, both=params.both_share, other=other)
        return [
            episode(rng, self.cards, shares.draw(rng, params.episode_length))
            for _ in range(params.batch_size)
        ]

    def loss(self, episodes: Sequence[Sequence[Item]]) -> Tensor:
        """Return the mean cross-entropy of all answer tokens, including end marks, in nats."""
        ids, hidden = self._forward(episodes)
        tokenizer = self.processor.tokenizer
        at = answer_mask(ids, tokenizer.convert_tokens_to_ids(ASSISTANT), tokenizer.eos_token_id)
        logits = self.model.lm_head(hidden[:, :-1][at[:, 1:]])
        return torch.nn.functional.cross_entropy(logits, ids[:, 1:][at[:, 1:]])

    @torch.no_grad()
    def share_right(self, kinds: Sequence[Kind], count: int, seed: int) -> float:
        """Return how often the last answer of an episode is right, to watch the training.

        Args:
            kinds: The kinds of the episode's examples; the last one is asked.
            count: Number of episodes.
            seed: Seed of the episodes.
        """
        rng = np.random.default_rng([seed, 201])
        ids, hidden = self._forward([episode(rng, self.cards, kinds) for _ in range(count)])
        asked = ids == self.processor.tokenizer.convert_tokens_to_ids(ASSISTANT)
        last = ids.shape[1] - 1 - asked.flip(1).int().argmax(1)
        rows = torch.arange(count)
        given = self.model.lm_head(hidden[rows, last]).argmax(-1)
        return float((given == ids[rows, last + 1]).float().mean())

    def _forward(self, episodes: Sequence[Sequence[Item]]) -> tuple[Tensor, Tensor]:
        """Return token ids [episodes, length] and last hidden states [episodes, length, width]."""
        tokenizer, config = self.processor.tokenizer, self.model.config
        patches = self.features.shape[1]
        texts = [
            render(self.processor, items, None).replace(IMAGE, IMAGE * patches)
            for items in episodes
        ]
        batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        embeds = self.model.get_input_embeddings()(ids)
        rows = [item.card for items in episodes for item in items]
        images = self.model.model.multi_modal_projector(self.features[rows])
        embeds = embeds.masked_scatter(
            (ids == config.image_token_id).unsqueeze(-1), images.to(embeds.dtype)
        )
        return ids, self.model.model.language_model(inputs_embeds=embeds, attention_mask=mask)[0]


def answer_mask(ids: Tensor, assistant_id: int, eos_id: int) -> Tensor:
    """Return bool [batch, length]: True from after an assistant mark to the end mark, included."""
    opened = (ids == assistant_id).cumsum(-1)
    closed = (ids == eos_id).cumsum(-1)
    return ((opened > closed) & (ids != assistant_id)) | ((ids == eos_id) & (opened == closed))
