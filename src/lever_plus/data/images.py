"""Opening image files, for whatever looks at them: the VLM, the encoder, the duplicate search."""

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
