"""Images that lack pixels are refused, while Pillow silently makes black or gray ones."""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lever_plus.data.images import open_image
from lever_plus.errors import UserError


def photo(mode: str = "RGB", size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture as smooth as a photograph."""
    noise = np.random.default_rng(0).integers(0, 255, (15, 20, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def refused(content: bytes, folder: Path) -> str:
    """Return why a file is refused; "" if it is not."""
    path = folder / "a.img"
    path.write_bytes(content)
    try:
        open_image(path)
    except UserError as error:
        return str(error).removeprefix(f"image {path} cannot be read: ")
    return ""


WHOLE = jpeg(photo())
MIDDLE = len(WHOLE) // 2


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (WHOLE[:MIDDLE] + b"\xff\xd9", "its data end before its pixels"),
        (WHOLE[:MIDDLE] + WHOLE[MIDDLE + 300 :], "its data end before its pixels"),
        (WHOLE[:MIDDLE] + WHOLE[MIDDLE - 300 :], "its pixels end before its data"),
        (WHOLE[:MIDDLE] + bytes(1000) + WHOLE[MIDDLE + 1000 :], "is damaged"),
        (jpeg(photo(), restart_marker_blocks=9).replace(b"\xff\xd3", b"", 1), "a part of"),
    ],
    ids=["closed too early", "a part is missing", "a part is twice there", "zeros", "restarts"],
)
def test_a_jpeg_whose_data_do_not_fit_its_size_is_refused(
    damaged: bytes, why: str, tmp_path: Path
) -> None:
    assert why in refused(damaged, tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (16, 16), (160, 120), (301, 3)])
def test_whole_jpegs_of_every_kind_open(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    black = Image.new(mode, size)
    for image in (
        photo(mode, size),
        black,
        Image.new(mode, size, "white" if mode != "CMYK" else 9),
    ):
        for options in (
            {},
            {"quality": 100, "subsampling": 0},
            {"quality": 3, "subsampling": 1},
            {"progressive": True},
            {"restart_marker_blocks": 3},
            {"restart_marker_rows": 1},
            {"optimize": True},
        ):
            content = jpeg(image, **options)
            for behind in (b"", content, b"camera notes" * 50):
                assert refused(content + behind, tmp_path) == ""
            for before_end in (bytes(40), b"\xff" * 9):  # as some cameras fill blocks up
                assert refused(content[:-2] + before_end + content[-2:], tmp_path) == ""


def test_most_damage_in_a_jpeg_is_seen(tmp_path: Path) -> None:
    rng, seen = random.Random(3), 0
    content = jpeg(photo(size=(640, 480)))
    for _ in range(40):
        at = rng.randrange(700, len(content) - 1500)
        seen += bool(refused(content[:at] + rng.randbytes(1024) + content[at + 1024 :], tmp_path))
    assert seen >= 35


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: bytes, *before: bytes, interlaced: int = 0) -> bytes:
    """A PNG of 8 x 8 pixels in colours."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, interlaced))
    body = (head, *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


WHITE_ROW = b"\0" + b"\xff" * 24


def test_a_png_that_lacks_rows_is_refused(tmp_path: Path) -> None:
    assert refused(png(WHITE_ROW * 8), tmp_path) == ""
    for rows in (0, 3, 7):
        assert "it lacks pixels" in refused(png(WHITE_ROW * rows), tmp_path)
    # Passes of 1, 1, 2 x 1, 2 x 2, 4 x 2, 4 x 4 and 8 x 4 pixels.
    shape = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    passes = b"".join((b"\0" + b"\xff" * 3 * width) * rows for width, rows in shape)
    assert refused(png(passes, interlaced=1), tmp_path) == ""
    assert "it lacks pixels" in refused(png(passes[:-25], interlaced=1), tmp_path)


def test_a_png_s_profile_counts_whatever_its_size(tmp_path: Path) -> None:
    """Pillow takes a profile of more than a megabyte for an attack, and refuses the picture."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")
    large = struct.pack(">I", len(swapped) + 2**21) + swapped[4:] + bytes(2**21)
    red = (b"\0" + b"\xff\0\0" * 8) * 8
    for profile in (swapped, large):
        content = png(red, chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)))
        assert refused(content, tmp_path) == ""
        found = np.asarray(open_image(tmp_path / "a.img"))[0, 0]
        assert found.tolist() == pytest.approx([0, 255, 0], abs=2)
    huge = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**26)))
    assert "a colour profile of more than" in refused(png(red, huge), tmp_path)


def test_a_png_for_another_kind_of_screen_is_refused(tmp_path: Path) -> None:
    assert refused(png(WHITE_ROW * 8, chunk(b"cICP", bytes([1, 13, 0, 1]))), tmp_path) == ""
    wide = png(WHITE_ROW * 8, chunk(b"cICP", bytes([9, 16, 0, 1])))
    assert "colours for another kind of screen" in refused(wide, tmp_path)


def tiff(*tags: tuple[int, int], strip: bytes = b"\xff\xff") -> bytes:
    """A TIFF of 2 x 4 gray pixels in strips of one row, of which one is named."""
    known = {256: 2, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1, 279: len(strip), **dict(tags)}
    known[273] = 8 + 2 + 12 * (len(known) + 1) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, known[tag]) for tag in sorted(known)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(entries) + b"\0\0\0\0" + strip


def test_a_tiff_that_lacks_strips_or_has_signed_numbers_is_refused(tmp_path: Path) -> None:
    assert "it lacks a part of its pixels" in refused(tiff(), tmp_path)
    assert refused(tiff((278, 4), strip=b"\xff" * 8), tmp_path) == ""
    signed = tiff((278, 4), (339, 2), strip=b"\xff" * 8)
    assert "it has signed numbers" in refused(signed, tmp_path)
