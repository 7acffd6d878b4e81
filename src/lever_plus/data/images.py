"""Opens image files for the VLM, the encoder and the search for duplicates.

Pixels depend only on the picture, see `pixels`: all that open a file here see the same, and so does
a server that gets `image_url`. A file that can't be shown faithfully is refused by its name.
"""

import base64
import hashlib
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image, ImageFile, UnidentifiedImageError

from lever_plus.data.jpeg import check_jpeg
from lever_plus.data.pixels import NotShowableError, show
from lever_plus.data.png import check_rows, readable_png
from lever_plus.errors import UserError
from lever_plus.files.reading import read_bytes

OPENER: Final = 2
"""Version of how files that are not plain are decoded; it is part of their images' keys."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats of pixels; page descriptions, which another program would have to run, are not opened."""
ADVICE: Final = "restore it, or save it again as an 8-bit PNG or JPEG"
MOST_BYTES: Final = 2**29
"""Largest size of a file."""
MOST_PIXELS: Final = 89_478_485
"""Pillow's own limit: above it, a small file may be made to fill the memory."""
LONGEST: Final = 1000
"""Largest ratio of the sides: models scale the shorter one up to hundreds of pixels."""

_keys: dict[str, str] = {}


class _Opened(NamedTuple):
    """A picture, its file's format, and whether it is plain (see `pixels.Shown`)."""

    image: Image.Image
    format: str
    plain: bool


def open_image(path: str | Path) -> Image.Image:
    """Open an image as it is shown: 8-bit sRGB on white, the right way up.

    Of an animation the first frame is opened. `FORMATS` lists the formats.

    Raises:
        UserError: The file is missing, damaged or not an image of these formats, has more than
            `MOST_PIXELS` pixels, or can't be shown faithfully: several pages, numbers of unknown
            range.
    """
    return _opened(_content(path), path).image


def image_sha256(path: str | Path) -> str:
    """Return the key of an image's content, under which answers and features are kept.

    It is the SHA-256 (hex) of the file's bytes if they hold exactly the pixels that are seen. For
    any other file (turned, transparent, with a colour profile, ...) the version of this opener is
    hashed, too: when the opener changes, answers and features of such images are computed again.

    Raises:
        UserError: The file cannot be read. A file that is not an image is no error here, but in
            `opened_sha256`.
    """
    content = _content(path)
    try:
        return _key(content, path)
    except UserError:  # there are no pixels, so nothing can have been computed from them
        return _versioned(hashlib.sha256(content).hexdigest())


def opened_sha256(path: str | Path) -> str:
    """Return the `image_sha256` of an image after opening it; UserError as `open_image`."""
    return _key(_content(path), path)


def check_unchanged(images: Iterable[tuple[str, str]]) -> None:
    """Refuse images that were changed since they were hashed.

    Args:
        images: (path, `image_sha256` at that time) of each image.

    Raises:
        UserError: An image was changed, or cannot be read.
    """
    for path, known_as in images:
        digest = hashlib.sha256(_content(path)).hexdigest()
        if known_as not in (digest, _versioned(digest)):
            raise UserError(
                f"image {path} was changed after it was first read, and its answers and features "
                "would be stored as those of the old image: put the old one back, or prepare the "
                "data again (`dvc repro --force prepare`)."
            )


def bytes_sha256(path: str | Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes; UserError if it cannot be read."""
    return hashlib.sha256(_content(path)).hexdigest()


def image_url(path: str | Path) -> str:
    """Return an image as a data URL, which any program decodes to the pixels of `open_image`.

    A plain JPEG is sent as it is, and anything else as a PNG, without loss.

    Raises:
        UserError: As `open_image`.
    """
    content = _content(path)
    opened = _opened(content, path)
    kind = "jpeg" if opened.plain and opened.format == "JPEG" else "png"
    if kind == "png":
        stream = BytesIO()
        opened.image.save(stream, "PNG")
        content = stream.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _key(content: bytes, path: str | Path) -> str:
    digest = hashlib.sha256(content).hexdigest()
    if digest not in _keys:
        _keys[digest] = digest if _opened(content, path).plain else _versioned(digest)
    return _keys[digest]


def _versioned(digest: str) -> str:
    return hashlib.sha256(f"opener {OPENER} {digest}".encode()).hexdigest()


def _content(path: str | Path) -> bytes:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UserError(
            f"image {path} cannot be read: PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, so Pillow "
            "would fill missing parts of damaged images with black: set it to False."
        )
    try:
        return read_bytes(Path(path), ADVICE, limit=MOST_BYTES)
    except UserError as error:
        raise UserError(f"image {path} cannot be read: {error}") from error


def _opened(content: bytes, path: str | Path) -> _Opened:
    """Decode a file's bytes; UserError names the file, whatever is wrong with them."""
    try:
        readable = readable_png(content)
        with Image.open(BytesIO(readable.content), formats=FORMATS) as image:
            _check_size(*image.size)
            check_rows(readable)
            if readable.profile is not None:
                image.info["icc_profile"] = readable.profile
            if image.format in ("JPEG", "MPO"):
                check_jpeg(content)
            shown = show(image)
            _check_size(*shown.image.size)
            return _Opened(shown.image, str(image.format), shown.plain)
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        why = f"is none of {kinds}, or its beginning is damaged" if content else "is empty"
        raise UserError(f"image {path} cannot be read: it {why}: {ADVICE}.") from error
    except (NotShowableError, Image.DecompressionBombError) as error:
        why = str(error) if isinstance(error, NotShowableError) else "has too many pixels"
        raise UserError(f"image {path} cannot be read: it {why}: {ADVICE}.") from error
    except Exception as error:  # Pillow's readers raise exceptions of almost every kind
        why = str(error) or type(error).__name__
        raise UserError(f"image {path} cannot be read: it is damaged ({why}): {ADVICE}.") from error


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise NotShowableError("has no pixels")
    if width * height > MOST_PIXELS:
        raise NotShowableError(f"has {width} x {height} pixels, more than {MOST_PIXELS:,}")
    if max(width, height) > LONGEST * min(width, height):
        raise NotShowableError(f"has {width} x {height} pixels: no model can see such a strip")
