"""How the tiny models of the embedded world are trained."""

from typing import Annotated

from pydantic import Field

from lever_plus.config.base import Count, Positive, Section, Share


class ClipPretrainParams(Section):
    """The tiny CLIP."""

    cards: Count = Field(description="training images rendered for both tiny models")
    width: Count = Field(description="width of the text tower")
    vision_width: Count = Field(description="width of the vision tower")
    text_layers: Count
    vision_layers: Annotated[int, Field(ge=2)]
    projection: Count = Field(description="dimensions of an embedding")
    learning_rate: Positive
    batch_size: Count = Field(description="image-caption pairs a step")
    hard_groups: Count = Field(description="groups that differ in the digit alone, every 2nd step")
    steps: Count


class VlmPretrainParams(Section):
    """The tiny VLM."""

    width: Count
    mlp_width: Count
    layers: Count
    heads: Count
    learning_rate: Positive
    warmup: Count = Field(description="warm-up steps")
    plain_steps: Count = Field(description="steps of plain VQA, before the episodes")
    steps: Count = Field(description="steps of few-shot episodes")
    batch_size: Count = Field(description="episodes a step")
    episode_length: Count = Field(description="examples in an episode")
    plain_share: Share = Field(description="probability of a plain word in an episode")
    theme_share: Share = Field(description="probability that an example keeps the episode's theme")


class PretrainParams(Section):
    """The tiny models of the embedded world."""

    clip: ClipPretrainParams
    vlm: VlmPretrainParams
    probes: Count = Field(description="questions per row of the in-context table")
