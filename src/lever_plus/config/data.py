"""Where examples come from, and the division of the training split."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import Count, Few, Section, Share, Text
from lever_plus.files.names import ImageName

Items = Annotated[int, Field(ge=1, le=1_000_000)]
"""Of a split of the embedded data set: the ids of the next split start after a million."""
ImageSize = Annotated[
    int,
    Field(
        ge=40,
        le=4096,
        description="side of the rendered cards, pixels; on smaller ones a digit has no room",
    ),
]


class EmbeddedSource(Section):
    """The embedded data set, house words: made from the seed."""

    kind: Literal["embedded"] = Field(description="the embedded data set")
    train: Items = Field(description="training items; every one is a possible ICD")
    dev: Items = Field(description="items that choices (epochs, settings) are made on")
    test: Items = Field(description="items that are only reported")
    plain_share: Share = Field(description="probability of a plain word, per word slot")
    image_size: ImageSize


class VqaSplit(Section):
    """Files of one split in VQAv2 format; paths are relative to `root`."""

    questions: Text = Field(description="questions JSON")
    annotations: Text = Field(description="annotations JSON")
    images: Text = Field(description="folder of the images")
    image_name: ImageName = Field(
        description="file name; {image_id:012d} is the id in twelve digits"
    )
    sample: Count | None = Field(description="questions drawn at random; null: all")


class HeldOut(Section):
    """A split taken from the training files, by image: no image is on both sides."""

    held_out: Count = Field(description="questions taken from the training split")


class VqaFilesSource(Section):
    """Files in VQAv2 format: VQAv2, OK-VQA, or your own."""

    kind: Literal["vqa_files"] = Field(description="files of your own, in VQAv2 format")
    root: Text = Field(description="folder that the paths of the splits start from")
    answers_per_question: Few = Field(description="human answers of every question")
    allow_fallback: bool = Field(
        description="score questions with another number of answers by exact match, and mark them"
    )
    train: VqaSplit = Field(description="every question is a possible ICD")
    dev: VqaSplit | HeldOut = Field(description="choices (epochs, settings) are made on it")
    test: VqaSplit = Field(description="only reported")


class DataParams(Section):
    """Where examples come from, and the division of the training split."""

    source: Annotated[EmbeddedSource | VqaFilesSource, Field(discriminator="kind")]
    rl_queries: Count = Field(description="training items that are RL queries (the first ones)")
    sft_queries: Count = Field(description="RL queries that are SFT queries too (the first ones)")
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] | None = Field(
        description="images whose perceptual hashes differ in at most so many of 64 bits are "
        "reported; null: not searched"
    )

    @model_validator(mode="after")
    def _nested(self) -> "DataParams":
        if self.sft_queries > self.rl_queries:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        if self.source.kind == "embedded" and self.rl_queries > self.source.train:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        return self
