"""Turns a picture of any format into what is seen: 8-bit sRGB on white, the right way up.

Everything in the file that says how the picture is shown is applied: orientation, bit depth,
palette, transparency, colour profile, gamma. All else (texts, comments, thumbnails) is ignored, and
so are profiles and EXIF data that can't be read, as in browsers.
"""

from functools import lru_cache
from io import BytesIO
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile

TURNED: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that sets a picture upright, by its EXIF orientation; 1 is upright."""
WIDE: Final = ("I;16", "I;16B", "I;16L", "I;16N")
PLAIN: Final = ("JPEG", "PNG", "BMP")
SRGB_LEVELS: Final = 2
"""A profile that moves no colour by more levels (of 255) is sRGB: the rest is rounding."""
SCREEN_GAMMA: Final = 2.2
SAME_GAMMA: Final = 0.05
"""libpng's threshold: a gamma that is as close to the screen's as this is not applied."""
YCBCR_SUBSAMPLING: Final = 530
SAMPLE_BITS: Final = 258
PHOTOMETRIC: Final = 262
WIDTH: Final = 256
HEIGHT: Final = 257
SAMPLE_FORMAT: Final = 339
SIGNED: Final = 2


class NotShowableError(Exception):
    """A picture can't be shown faithfully; the message says why, as the end of "it ..."."""


class Shown(NamedTuple):
    """A picture as it is shown.

    Attributes:
        image: 8-bit RGB, with nothing else attached.
        plain: Whether the file itself holds exactly these pixels, 8 bits each, in a format that
            every program reads in the same way.
    """

    image: Image.Image
    plain: bool


def show(image: ImageFile.ImageFile) -> Shown:
    """Return the picture that a file shows.

    That is the first frame of an animation, and the main picture of a JPEG with several.

    Args:
        image: From `Image.open`, not loaded yet.

    Raises:
        NotShowableError: The file does not say how to show it: numbers of unknown range, several
            pages.
        Exception: Whatever Pillow raises for a damaged file.
    """
    stored = str(image.tile[0].args) if image.tile else ""
    frame = image.tile[0].extents if image.format == "GIF" else None
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise NotShowableError("has several pages, and any of them may be the picture")
    if image.format == "TIFF":
        _check_tiff(image)
    image.load()
    colours, alpha = _parts(image, stored)
    turn = _turn(image)
    plain = (
        image.format in PLAIN
        and (image.format != "PNG" or stored == image.mode)
        and image.mode in ("L", "RGB")
        and alpha is None
        and turn is None
        and not {"icc_profile", "gamma"} & image.info.keys()
        and not getattr(image, "is_animated", False)
    )
    shown = _srgb(colours, image.info)
    if frame is not None and frame != (0, 0, *image.size):
        alpha = _inside(alpha, frame, image.size)
    if alpha is not None:
        ground = Image.new("RGB", shown.size, "white")
        ground.paste(shown, mask=alpha)
        shown = ground
    shown = shown if turn is None else shown.transpose(turn)
    shown.info = {}  # else saving it would apply a profile or a transparent colour again
    return Shown(shown, plain)


def _check_tiff(image: ImageFile.ImageFile) -> None:
    """Refuse signed numbers, which Pillow misreads, and missing parts, which it leaves black."""
    if SIGNED in _tag(image, SAMPLE_FORMAT, ()):
        raise NotShowableError("has signed numbers, whose range is unknown")
    parts = {tile.extents for tile in image.tile if tile.extents is not None}
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in parts)
    if covered < _tag(image, WIDTH, 0) * _tag(image, HEIGHT, 0):
        raise NotShowableError("lacks a part of its pixels")


def _parts(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (L, RGB or CMYK, 8 bits) and the alpha (L; None if all is opaque)."""
    mode, transparent = image.mode, image.info.get("transparency")
    if mode in WIDE or (mode == "I" and image.format == "PPM"):  # Pillow scales PPM to 16 bits
        return _narrowed(image, transparent)
    if mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    elif mode == "PA" or (mode == "P" and image.has_transparency_data):
        image = image.convert("RGBA")
    elif mode == "P":
        return image.convert("RGB"), None
    elif mode == "YCbCr":
        if _tag(image, YCBCR_SUBSAMPLING, (1, 1)) != (1, 1):
            raise NotShowableError("has subsampled YCbCr colours outside a JPEG")
        return image.convert("RGB"), None
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if mode not in ("1", "L", "RGB", "CMYK"):
        kinds = {"I": "32-bit numbers", "F": "floating-point numbers"}
        raise NotShowableError(f"has {kinds.get(mode, f'{mode} colours')}, whose range is unknown")
    colours = image.convert("L") if mode == "1" else image
    return colours, None if transparent is None else _all_but(colours, transparent, stored)


def _narrowed(image: Image.Image, transparent: Any) -> tuple[Image.Image, Image.Image | None]:
    """Return the upper 8 bits of 16 (or 12), and an alpha of 0 where the gray is transparent."""
    values = np.asarray(image).astype(np.uint16)
    bits = _tag(image, SAMPLE_BITS, (16,))[0]
    grays = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if _tag(image, PHOTOMETRIC, 1) == 0:  # 0 is white; Pillow heeds that only up to 8 bits
        grays = 255 - grays
    alpha = None
    if transparent is not None:
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.fromarray(grays), alpha


def _all_but(colours: Image.Image, transparent: Any, stored: str) -> Image.Image:
    """Return an alpha that is 0 where the colour is the transparent one, and 255 elsewhere.

    Args:
        colours: L or RGB.
        transparent: The transparent colour, in the file's own number of bits.
        stored: Pillow's name for how the file stores its pixels, such as "L;2".
    """
    if ";16" in stored:
        raise NotShowableError("has a transparent colour among 16-bit ones")
    # Pillow scales pixels of fewer bits to 255, but not the transparent colour.
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(stored, 1)
    wanted = transparent if isinstance(transparent, tuple) else (transparent,)
    alpha = Image.new("L", colours.size, 0)
    for channel, value in zip(colours.split(), wanted, strict=True):
        others = channel.point([255 * (level != value * scale) for level in range(256)])
        alpha = ImageChops.lighter(alpha, others)
    return alpha


def _inside(
    alpha: Image.Image | None, frame: tuple[int, int, int, int], size: tuple[int, int]
) -> Image.Image:
    """Return the alpha of a picture whose frame is smaller: outside the frame it is 0."""
    whole = Image.new("L", size, 0)
    whole.paste(255 if alpha is None else alpha.crop(frame), frame)
    return whole


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that sets the picture upright; None if it is, or EXIF data can't be read."""
    if image.format == "TIFF":  # Pillow has turned it already
        return None
    try:
        return TURNED.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block can raise anything
        return None


def _srgb(colours: Image.Image, info: dict[Any, Any]) -> Image.Image:
    """Return the colours as sRGB: by their profile, else by their gamma, else unchanged."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if isinstance(profile, bytes) and (to_srgb := _transform(profile, colours.mode)) is not None:
        converted = ImageCms.applyTransform(colours, to_srgb)
        assert converted is not None  # None is only for changes in place
        return converted
    shown = colours.convert("RGB")
    if profile or "srgb" in info or not isinstance(gamma, float) or gamma <= 0:
        return shown
    exponent = 1 / (gamma * SCREEN_GAMMA)
    if abs(exponent - 1) < SAME_GAMMA:
        return shown
    curve = [round(255 * (level / 255) ** exponent) for level in range(256)]
    return shown.point(curve * 3)


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion to sRGB; None if the profile is sRGB, damaged, or for other colours."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        to_srgb = ImageCms.buildTransform(found, srgb, mode, "RGB")
        if mode == "CMYK":
            return to_srgb
        levels = np.arange(256, dtype=np.uint8) if mode == "L" else _lattice()
        probe = Image.fromarray(levels.reshape(1, *levels.shape))
        moved = ImageCms.applyTransform(probe, to_srgb)
        difference = np.asarray(ImageChops.difference(moved or probe, probe.convert("RGB")))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return to_srgb if difference.max() > SRGB_LEVELS else None


def _lattice() -> NDArray[np.uint8]:
    """Return colours that are evenly spread over RGB, uint8 [n, 3]."""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    """Return a tag of a TIFF; the default if it is missing, or in another format."""
    return getattr(image, "tag_v2", {}).get(number, default)
