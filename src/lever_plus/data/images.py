"""Opening image files, for whatever looks at them: the VLM, the encoder, the duplicate search."""

import hashlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lever_plus.errors import UserError


def open_image(path: str) -> Image.Image:
    """Open an image as RGB.

    Raises:
        UserError: The file is missing or is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(
            f"image {path} cannot be read ({error}). Restore it, or run `dvc repro prepare`."
        ) from error


def image_sha256(path: str) -> str:
    """Return the sha256 of an image file's bytes; UserError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"image {path} cannot be read ({error}): restore it.") from error
