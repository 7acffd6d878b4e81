"""Images as small data URIs, so that a page with hundreds of them stays one file."""

import base64
import io
from collections.abc import Mapping
from typing import Final

from lever_plus.data.images import open_image

STEPS: Final = ((96, 75), (96, 40), (64, 40), (48, 30))
"""Longest side in pixels and WebP quality, tried in this order."""


def thumbnails(images: Mapping[int, str], budget: int) -> dict[int, str]:
    """Return {image id: data URI}: as good as fits into `budget` characters, or the smallest."""
    made: dict[int, str] = {}
    for side, quality in STEPS:
        made = {key: _data_uri(path, side, quality) for key, path in sorted(images.items())}
        if sum(map(len, made.values())) <= budget:
            break
    return made


def _data_uri(path: str, side: int, quality: int) -> str:
    image = open_image(path)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
