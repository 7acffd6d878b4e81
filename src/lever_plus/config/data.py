"""Where examples come from, and how many training queries each training stage uses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lever_plus.config.base import Count, Few, Section, Share, Text
from lever_plus.files.names import ImageName

Items = Annotated[int, Field(ge=1, le=1_000_000)]
"""The size of a split of the embedded data set: the next split's ids start after a million."""
ImageSize = Annotated[
    int,
    Field(
        ge=40,
        le=4096,
        description="side of the rendered cards in pixels; a digit does not fit on smaller ones",
    ),
]


class EmbeddedSource(Section):
    """The embedded data set, house words, which is made from the seed."""

    kind: Literal["embedded"] = Field(description="the embedded data set")
    train: Items = Field(description="training items; each may be used as a demonstration")
    dev: Items = Field(description="dev items, on which choices (epochs, settings) are made")
    test: Items = Field(
        description="test items, which are only reported: nothing is chosen on them"
    )
    plain_share: Share = Field(
        description="probability that a word of a question is plain, not a house word"
    )
    image_size: ImageSize


class VqaSplit(Section):
    """Files of one split in VQAv2 format; paths are relative to `root`."""

    questions: Text = Field(description="questions JSON")
    annotations: Text = Field(description="annotations JSON")
    images: Text = Field(description="folder of the images")
    image_name: ImageName = Field(
        description="file name of an image; {image_id:012d} is its id in twelve digits"
    )
    sample: Count | None = Field(description="number of questions, drawn at random; null: all")


class HeldOut(Section):
    """A split taken from the training files by image, so that no image is in both."""

    held_out: Count = Field(description="questions taken from the training split")


class VqaFilesSource(Section):
    """Files in VQAv2 format: VQAv2, OK-VQA, or the user's own."""

    kind: Literal["vqa_files"] = Field(description="files of your own, in VQAv2 format")
    root: Text = Field(description="folder that the paths of the splits are relative to")
    answers_per_question: Few = Field(description="human answers that every question must have")
    allow_fallback: bool = Field(
        description="score questions with another number of answers by exact match, and mark them; "
        "else they are refused"
    )
    train: VqaSplit = Field(
        description="training split; each question may be used as a demonstration"
    )
    dev: VqaSplit | HeldOut = Field(
        description="dev split, on which choices (epochs, settings) are made"
    )
    test: VqaSplit = Field(
        description="test split, which is only reported: nothing is chosen on it"
    )


class DataParams(Section):
    """Where examples come from, and how many training queries each training stage uses."""

    source: Annotated[EmbeddedSource | VqaFilesSource, Field(discriminator="kind")]
    rl_queries: Count = Field(
        description="number of training items that are queries of RL training: the first ones"
    )
    sft_queries: Count = Field(
        description="number of those that are queries of SFT, too: the first ones"
    )
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] | None = Field(
        description="report images of different splits whose 64-bit perceptual hashes differ in at "
        "most this many bits; null: do not search"
    )

    @model_validator(mode="after")
    def _nested(self) -> "DataParams":
        if self.sft_queries > self.rl_queries:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        if self.source.kind == "embedded" and self.rl_queries > self.source.train:
            raise ValueError("needs sft_queries <= rl_queries <= train")
        return self
