"""One way to call a Hugging Face processor and its model, for prompts with any number of images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
        processor: The VLM's processor.
        texts: n rendered prompts, with all their marks (special tokens).
        images: The images of each prompt, in order.
        side: The side on which shorter prompts are padded.

    Returns:
        Tensors by name: input_ids and attention_mask [n, length], and those that hold the images.

    Raises:
        UserError: The sides of an image differ more than the processor accepts.
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
            f"the VLM's processor does not accept an image of {longest[0]} x {longest[1]} pixels "
            f"({error}): remove the questions about it, or crop it."
        ) from error
    return dict(inputs)


def on_device(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs on the model's device, with pixels in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }
