"""Opening image files, for whatever looks at them: the VLM, the encoder, the duplicate search.

Pixels depend on the picture alone, see `pixels`: two programs that open a file here see the same,
and so does a server that is sent `image_url`. A file that can't be shown right is refused by name.
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
"""Version of how pixels are made of files that are not plain; answers and features know it."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is decoded in this process: pixels, never a page description that another program runs."""
ADVICE: Final = "restore it, or save it anew as an 8-bit PNG or JPEG"
MOST_BYTES: Final = 2**29
MOST_PIXELS: Final = 89_478_485
"""Pillow's own limit, above which a small file may be made to fill the memory."""
LONGEST: Final = 1000
"""Times that a side may be longer than the other; models scale the shorter one up to hundreds."""

_keys: dict[str, str] = {}


class _Opened(NamedTuple):
    """A picture, its file's format, and whether it is plain (see `pixels.Shown`)."""

    image: Image.Image
    format: str
    plain: bool


def open_image(path: str | Path) -> Image.Image:
    """Open an image as it is shown: 8-bit sRGB on white, the right way up.

    Of an animation that is its first frame. Formats are those of `FORMATS`.

    Raises:
        UserError: The file is missing, damaged or no such image, has more than `MOST_PIXELS`, or
            can't be shown right: several pages, numbers without a range.
    """
    return _opened(_content(path), path).image


def image_sha256(path: str | Path) -> str:
    """Return what tells an image's content from any other: the key of its answers and features.

    It is the sha256 of the file's bytes where they are the pixels that are seen. For every other
    file (turned, transparent, with a profile, ...) it is that of the opener's version and the
    bytes, so that what was computed from other pixels is computed anew.

    Raises:
        UserError: The file cannot be read; whether it is an image, `opened_sha256` checks.
    """
    content = _content(path)
    try:
        return _key(content, path)
    except UserError:  # it has no pixels: nothing can be computed from them
        return _versioned(hashlib.sha256(content).hexdigest())


def opened_sha256(path: str | Path) -> str:
    """Return the `image_sha256` of an image that was seen to open; UserError as `open_image`."""
    return _key(_content(path), path)


def check_unchanged(images: Iterable[tuple[str, str]]) -> None:
    """Refuse images, (path, `image_sha256`), that were changed since their hashes were taken.

    Raises:
        UserError: One was, or cannot be read.
    """
    for path, known_as in images:
        digest = hashlib.sha256(_content(path)).hexdigest()
        if known_as not in (digest, _versioned(digest)):
            raise UserError(
                f"image {path} was changed since its sha256 was taken, so that its answers and "
                "features would be kept as those of another image: put that one back, or prepare "
                "the data again (`dvc repro --force prepare`)."
            )


def bytes_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, whatever it shows; UserError if it cannot be read."""
    return hashlib.sha256(_content(path)).hexdigest()


def image_url(path: str | Path) -> str:
    """Return an image as a data URL, which any program decodes to the pixels of `open_image`.

    A plain JPEG is sent as it is; all else as PNG, without loss.

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
            f"image {path} cannot be read: PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, which fills "
            "what is missing of a damaged image with black: set it to False."
        )
    try:
        return read_bytes(Path(path), ADVICE, limit=MOST_BYTES)
    except UserError as error:
        raise UserError(f"image {path} cannot be read: {error}") from error


def _opened(content: bytes, path: str | Path) -> _Opened:
    """Decode a file's bytes; UserError, by the file's name, whatever is wrong with them."""
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
    except Exception as error:  # Pillow's readers raise about every kind there is
        why = str(error) or type(error).__name__
        raise UserError(f"image {path} cannot be read: it is damaged ({why}): {ADVICE}.") from error


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise NotShowableError("has no pixels")
    if width * height > MOST_PIXELS:
        raise NotShowableError(f"has {width} x {height} pixels, more than {MOST_PIXELS:,}")
    if max(width, height) > LONGEST * min(width, height):
        raise NotShowableError(f"has {width} x {height} pixels: no model can see such a strip")
