"""Processor and model of a VLM, loaded once even if it is used with several instructions."""

from functools import cached_property
from typing import Any

import torch

from lever_plus.config.vlm import HuggingFaceVlmParams
from lever_plus.hub.loading import identify, load_model, load_processor


class Weights:
    """Processor and model of a Hugging Face folder, and what identifies them.

    Attributes:
        name: Name of the model's class.
        revision: sha256 of the weights and the configuration.
        processor: The processor.
    """

    def __init__(self, path: str, params: HuggingFaceVlmParams) -> None:
        """Load the processor; the model is loaded when it is needed.

        Args:
            path: Hugging Face folder or hub id.
            params: Revision, device and precision.

        Raises:
            UserError: There is no such model, or its processor cannot be loaded.
        """
        self._path, self._params = path, params
        self.name, self.revision = identify(path, params.revision)
        self.processor = load_processor(path, params.revision)

    @cached_property
    def model(self) -> Any:
        """The model; it is loaded when first used."""
        from transformers import AutoModelForImageTextToText

        settings = self._params
        return load_model(
            AutoModelForImageTextToText,
            self._path,
            settings.revision,
            settings.device,
            identity=self.revision,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=settings.attn_implementation,
        )
