"""One way to call a Hugging Face processor and its model, for prompts with any number of images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from lever_plus.errors import UserError


def process(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Any]],
    side: Literal["left", "right"],
) -> dict[str, Tensor]:
    """Return model inputs.

    Args:
        processor: Of the VLM.
        texts: n rendered prompts, every mark of theirs included.
        images: For each prompt its images, in order.
        side: Where shorter prompts are padded.

    Returns:
        Tensors by name: input_ids and attention_mask [n, length], and what the images need.

    Raises:
        UserError: An image is a longer strip than the processor takes.
    """
    try:
        inputs = processor(
            text=list(texts),
            images=[list(row) for row in images],
            add_special_tokens=False,
            padding=True,
            padding_side=side,
            return_tensors="pt",
        )
    except ValueError as error:
        if "aspect ratio" not in str(error):
            raise
        longest = max((i.size for row in images for i in row), key=lambda s: max(s) / min(s))
        raise UserError(
            f"the VLM's processor takes no image of {longest[0]} x {longest[1]} pixels ({error}): "
            "take the questions about it out, or cut it."
        ) from error
    return dict(inputs)


def on_device(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs where the model is, pixels in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }


class _CapturedError(Exception):
    """Ends a forward pass where the language model would begin, and carries what it would get."""

    def __init__(self, embeds: Tensor) -> None:
        super().__init__()
        self.embeds = embeds


@contextmanager
def stopped_at_language_model(model: Any) -> Iterator[None]:
    """While this lasts, `input_embeddings` may be called, from several threads at once."""

    def stop(_module: Any, _arguments: Any, options: dict[str, Any]) -> None:
        raise _CapturedError(options["inputs_embeds"])

    handle = model.get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def input_embeddings(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return what the language model is given: embeddings [n, length, width], images merged in."""
    try:
        model.model(**on_device(model, inputs))
    except _CapturedError as captured:
        return captured.embeds
    raise TypeError(f"{type(model).__name__} does not call its own language model")
