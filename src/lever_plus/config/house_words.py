"""How the shipped models of the embedded world are made: recipes/house_words/params.yaml."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from lever_plus.config.base import MOST, Count, Few, LearningRate, Section, Seed, Share, Width
from lever_plus.config.data import ImageSize
from lever_plus.files.names import Name, check_apart

CLIP: Final = "clip"
"""Name of the shipped encoder; no VLM has it."""
TowerWidth = Annotated[Width, Field(multiple_of=4)]
"""A tower has four heads."""


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
        description="image-caption pairs a step"
    )
    hard_groups: Count = Field(description="groups that differ in the digit alone, every 2nd step")
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
    plain_steps: Count = Field(description="steps of plain VQA, before the episodes")
    steps: Count = Field(description="steps of few-shot episodes")
    batch_size: Few = Field(description="episodes a step")
    episode_length: Few = Field(description="examples in an episode")
    half_share: Share = Field(
        description="probability that an example explains the episode's attribute alone; and as "
        "much the language alone"
    )
    both_share: Share = Field(description="probability that it explains both; the rest is plain")
    other_share: Share = Field(description="probability that its house words mean something else")
    other_from: Annotated[int, Field(ge=0, le=MOST)] = Field(
        description="step of the episodes from which on there are such examples"
    )

    @model_validator(mode="after")
    def _divides(self) -> "VlmPretrainParams":
        if self.width % (2 * self.heads):
            raise ValueError("width must be a multiple of twice the heads: each gets an even part")
        if 2 * self.half_share + self.both_share + self.other_share > 1:
            raise ValueError("twice half_share, both_share and other_share must not exceed 1")
        if self.warmup >= self.plain_steps + self.steps:
            raise ValueError("warmup must be shorter than plain_steps and steps together")
        return self


class ShippedVlmParams(VlmPretrainParams):
    """A shipped VLM."""

    seed: Seed = Field(description="of its weights and its episodes")


def _apart(vlms: dict[str, ShippedVlmParams]) -> dict[str, ShippedVlmParams]:
    check_apart(vlms, (CLIP,))
    return vlms


class RecipeParams(Section):
    """The whole file."""

    seed: Seed = Field(description="of the cards, the tiny CLIP and the in-context table")
    threads: Few = Field(description="torch threads")
    image_size: ImageSize
    clip: ClipPretrainParams
    vlms: Annotated[dict[Name, ShippedVlmParams], AfterValidator(_apart)] = Field(
        min_length=1, description="{name: how it is trained}; it is shipped as shipped:<name>"
    )
    probes: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        description="questions per row of the in-context table"
    )
