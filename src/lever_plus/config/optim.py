"""Settings of the optimiser, which all training stages have."""

from typing import Literal

from pydantic import Field, model_validator

from lever_plus.config.base import Count, LearningRate, NonNegative, Positive, Section, Whole


class OptimParams(Section):
    """Settings of the optimiser, which all training stages have."""

    epochs: Count = Field(
        description="passes over the training data; with rounds of fresh candidates, passes over "
        "those of a round"
    )
    learning_rate: LearningRate
    schedule: Literal["constant", "linear", "cosine"] = Field(
        description="schedule of the learning rate after the warm-up; linear and cosine end at 0"
    )
    warmup: Whole = Field(description="optimiser steps in which the learning rate rises from 0")
    batch_size: Count = Field(description="queries per optimiser step")
    weight_decay: NonNegative = Field(description="of AdamW, in multiples of the learning rate")
    grad_clip: Positive = Field(description="norm to which larger gradients are scaled down")

    @model_validator(mode="after")
    def _decays(self) -> "OptimParams":
        if self.learning_rate * self.weight_decay >= 1:
            raise ValueError(
                "learning_rate * weight_decay must be below 1: else a step flips the weights' signs"
            )
        return self
