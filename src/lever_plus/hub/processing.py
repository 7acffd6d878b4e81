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
