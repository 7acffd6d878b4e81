"""Images as small data URIs, so that a page with hundreds of them stays one file."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image

from lever_plus.data.images import open_image

STEPS: Final = ((96, 75), (96, 40), (64, 40), (48, 30))
"""Longest side in pixels and WebP quality, tried in this order."""


def thumbnails(
    images: Mapping[int, str], budget: int, steps: Sequence[tuple[int, int]] = STEPS
) -> dict[int, str]:
    """Return {image id: data URI}: as good as fits into `budget` characters, or the smallest.

    Args:
        images: {image id: path}.
        budget: Characters of all together.
        steps: Sides and qualities to try, the best first; see `STEPS`.
    """
    shrunk = {key: _shrunk(path, steps) for key, path in sorted(images.items())}
    made: dict[int, str] = {}
    for side, quality in steps:
        made = {key: _data_uri(sizes[side], quality) for key, sizes in shrunk.items()}
        if sum(map(len, made.values())) <= budget:
            break
    return made


def _shrunk(path: str, steps: Sequence[tuple[int, int]]) -> dict[int, Image.Image]:
    """Return an image at every side of `steps`.

    It is opened only once, which takes most of the time: a page has hundreds of images, some of
    many megapixels.
    """
    whole, sizes = open_image(path), dict[int, Image.Image]()
    for side, _ in steps:
        if side not in sizes:
            sizes[side] = whole.copy()
            sizes[side].thumbnail((side, side))
    return sizes


def _data_uri(image: Image.Image, quality: int) -> str:
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
