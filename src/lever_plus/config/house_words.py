"""How the shipped models of the embedded world are made: recipes/house_words/params.yaml."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from lever_plus.config.base import MOST, Count, Few, LearningRate, Section, Seed, Share, Width
from lever_plus.config.data import ImageSize
from lever_plus.files.names import Name, check_apart

CLIP: Final = "clip"
"""Name of the shipped encoder, which no VLM may have."""
TowerWidth = Annotated[Width, Field(multiple_of=4)]
"""A multiple of 4, because a tower has four heads."""


class ClipPretrainParams(Section):
    """The tiny CLIP."""

    cards: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        description="training images rendered for both tiny models"
    )
    width: TowerWidth = Field(description="width of the text tower")
    vision_width: TowerWidth = Field(description="width of the vision tower")
    text_layers: Few
    vision_layers: Annotated[int, Field(ge=2, le=10_000)]
    projection: Width = Field(description="dimensions of an embedding")
    learning_rate: LearningRate
    batch_size: Annotated[int, Field(ge=2, le=MOST)] = Field(
        description="image-caption pairs per step"
    )
    hard_groups: Count = Field(
        description="groups of cards that differ in nothing but the digit, in every 2nd step"
    )
    steps: Count

    @model_validator(mode="after")
    def _fills_a_batch(self) -> "ClipPretrainParams":
        if self.batch_size > self.cards:
            raise ValueError("batch_size must not be larger than cards: a batch has no card twice")
        return self


class VlmPretrainParams(Section):
    """The tiny VLM."""

    width: Width
    mlp_width: Width
    layers: Few
    heads: Few
    learning_rate: LearningRate
    warmup: Count = Field(description="warm-up steps")
    plain_steps: Count = Field(description="steps of plain VQA, before those of episodes")
    steps: Count = Field(description="steps of few-shot episodes")
    batch_size: Few = Field(description="episodes per step")
    episode_length: Few = Field(description="examples in an episode")
    half_share: Share = Field(
        description="probability that an example explains only the episode's attribute; the "
        "probability that it explains only the language is the same"
    )
    both_share: Share = Field(
        description="probability that it explains both; all other examples are plain"
    )
    other_share: Share = Field(
        description="probability that its house words have other meanings than the episode's"
    )
    other_from: Annotated[int, Field(ge=0, le=MOST)] = Field(
        description="number of the step of episodes from which on other_share applies"
    )

    @model_validator(mode="after")
    def _divides(self) -> "VlmPretrainParams":
        if self.width % (2 * self.heads):
            raise ValueError("width must be a multiple of 2 * heads: each head has an even width")
        if 2 * self.half_share + self.both_share + self.other_share > 1:
            raise ValueError("2 * half_share + both_share + other_share must not exceed 1")
        if self.warmup >= self.plain_steps + self.steps:
            raise ValueError("warmup must be less than plain_steps + steps")
        return self


class ShippedVlmParams(VlmPretrainParams):
    """A shipped VLM."""

    seed: Seed = Field(description="seed of its weights and its episodes")


def _apart(vlms: dict[str, ShippedVlmParams]) -> dict[str, ShippedVlmParams]:
    check_apart(vlms, (CLIP,))
    return vlms


class RecipeParams(Section):
    """The whole file recipes/house_words/params.yaml."""

    seed: Seed = Field(description="seed of the cards, the tiny CLIP and the in-context table")
    threads: Few = Field(description="torch threads")
    image_size: ImageSize
    clip: ClipPretrainParams
    vlms: Annotated[dict[Name, ShippedVlmParams], AfterValidator(_apart)] = Field(
        min_length=1, description="{name: how that VLM is trained}; users name it shipped:<name>"
    )
    probes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        description="questions per row of the in-context table"
    )
