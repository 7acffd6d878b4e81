"""An image whose sides differ too much for a family's processor is refused, with its size."""

import pytest
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from lever_plus.errors import UserError
from lever_plus.hub.processing import process


def test_a_strip_is_refused_by_its_size() -> None:
    images = Qwen2VLImageProcessorPil()

    def processor(**given: object) -> object:
        return images(images=given["images"], return_tensors="pt")

    pictures = [[Image.new("RGB", (60, 60)), Image.new("RGB", (1, 300))]]
    with pytest.raises(
        UserError, match=r"does not accept an image of 1 x 300 pixels \(absolute aspect"
    ):
        process(processor, ["a", "b"], pictures, "left")


def test_other_mistakes_stay_what_they_are() -> None:
    def processor(**_given: object) -> object:
        raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        process(processor, ["a"], [[]], "left")
