"""Pixels depend only on the picture: however it is stored, it opens as the same pixels."""

import base64
import io
import os
import struct
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from lever_plus.data import images
from lever_plus.data.images import image_sha256, image_url, open_image, opened_sha256
from lever_plus.errors import UserError

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored that an orientation sets upright."""


def pixels(path: Path) -> NDArray[np.uint8]:
    image = open_image(str(path))
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def halves() -> Image.Image:
    """A blue picture, 64 x 96, with a red upper half and a white corner."""
    image = Image.new("RGB", (64, 96), BLUE)
    image.paste(RED, (0, 0, 64, 48))
    image.paste(WHITE, (0, 0, 8, 8))
    return image


def square(mode: str, ink: Any, ground: Any) -> Image.Image:
    image = Image.new(mode, (12, 12), ground)
    image.paste(ink, (3, 3, 9, 9))
    return image


BLACK_SQUARE = np.asarray(square("RGB", BLACK, WHITE))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], bits: int, colours: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG of given header and rows (filter bytes included), with chunks before its data."""
    head = struct.pack(">IIBBBBB", *size, bits, colours, 0, 0, 0)
    body = (chunk(b"IHDR", head), *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def with_chunk(content: bytes, made: bytes) -> bytes:
    """A PNG with an additional chunk right after its header."""
    return content[:33] + made + content[33:]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_orientation_is_set_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    turn = TURNS[orientation]
    stored = halves() if turn is None else halves().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    path = tmp_path / "a"
    path.write_bytes(saved(stored, kind, exif=exif, **options))
    difference = np.abs(pixels(path).astype(int) - np.asarray(halves()))
    assert difference.max() <= (3 if kind == "JPEG" else 0)
    assert (image_sha256(path) == sha256(path.read_bytes()).hexdigest()) == (
        orientation == 1 and kind in images.FORMATS[:2]
    )


def test_an_orientation_that_comes_late_in_a_png_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(halves().transpose(Image.Transpose.ROTATE_90), "PNG")
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(content[:-12] + late + content[-12:])
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(halves()))


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "TIFF big endian", "TIFF lzw"])
def test_sixteen_bits_of_gray_are_scaled_to_eight(kind: str, factor: int, tmp_path: Path) -> None:
    wide = Image.fromarray(RAMP * factor)
    options: dict[str, Any] = {"compression": "tiff_lzw"} if "lzw" in kind else {}
    if "big" in kind:
        wide = Image.frombytes("I;16B", wide.size, (RAMP * factor).astype(">u2").tobytes())
    (tmp_path / "a").write_bytes(saved(wide, kind.split()[0], **options))
    np.testing.assert_array_equal(pixels(tmp_path / "a")[..., 1], RAMP)


def test_grays_of_twelve_bits_and_of_white_as_zero(tmp_path: Path) -> None:
    """Pillow reads the first as 16 bits without scaling, and the second as its negative."""
    twelve = np.array([[0, 4095], [2048, 16]], dtype=np.uint16)
    packed = b"\x00\x0f\xff\x80\x00\x10"
    tags = ((256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1))
    (tmp_path / "a.tif").write_bytes(tiff(tags, packed))
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], twelve >> 4)
    tags = ((256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 0))
    (tmp_path / "a.tif").write_bytes(tiff(tags, b"\x00\x00\xff\xff"))
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], [[255, 0]])


def tiff(tags: Any, data: bytes) -> bytes:
    """A little-endian TIFF of one strip."""
    rows = next(value for tag, _, value in tags if tag == 257)
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    entries = sorted([*tags, (273, 4, start), (278, 3, rows), (279, 4, len(data))])
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0\0\0\0" + data


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("PNG", square("LA", (0, 255), (0, 0))),
        ("PNG", square("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))),
        ("WEBP", square("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))),
        ("TIFF", square("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))),
        ("TIFF", square("LA", (0, 255), (0, 0))),
        ("GIF", square("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mode,
)
def test_what_is_transparent_is_white(kind: str, image: Image.Image, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(saved(image, kind, **options))
    np.testing.assert_array_equal(pixels(tmp_path / "a"), BLACK_SQUARE)
    assert image_sha256(tmp_path / "a") != sha256((tmp_path / "a").read_bytes()).hexdigest()


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert set(pixels(tmp_path / "a.png").ravel().tolist()) == {127}


@pytest.mark.parametrize(
    ("mode", "ink", "ground", "transparent"),
    [
        ("L", 0, 77, 77),
        ("RGB", BLACK, (1, 2, 3), (1, 2, 3)),
        ("1", 0, 1, 1),
        ("P", 0, 1, 1),
        ("P", 0, 1, b"\xff\x00"),
    ],
)
def test_a_transparent_colour_is_white(
    mode: str, ink: Any, ground: Any, transparent: Any, tmp_path: Path
) -> None:
    image = square(mode, ink, ground)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    image.save(tmp_path / "a.png", transparency=transparent)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), BLACK_SQUARE)


def test_a_transparent_gray_of_two_bits_or_of_sixteen(tmp_path: Path) -> None:
    """The file gives the gray in its own number of bits, which Pillow does not scale."""
    rows = b"\0\xcc" * 2  # 3 0 3 0
    two = png((4, 2), 2, 0, rows, chunk(b"tRNS", b"\0\3"))
    (tmp_path / "a.png").write_bytes(two)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[..., 0], [[255, 0, 255, 0]] * 2)
    two = png((4, 2), 2, 0, rows, chunk(b"tRNS", b"\0\0"))
    (tmp_path / "a.png").write_bytes(two)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[..., 0], [[255] * 4] * 2)
    wide = png((2, 1), 16, 0, b"\0\x01\x02\x01\x03", chunk(b"tRNS", b"\1\2"))
    (tmp_path / "a.png").write_bytes(wide)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[..., 0], [[255, 1]])
    colours = png((1, 1), 16, 2, b"\0" + b"\1\2" * 3, chunk(b"tRNS", b"\1\2" * 3))
    (tmp_path / "a.png").write_bytes(colours)
    with pytest.raises(UserError, match=r"a.png cannot be read: it has a transparent colour among"):
        open_image(tmp_path / "a.png")


def test_a_gif_whose_first_frame_is_smaller_is_white_around_it(tmp_path: Path) -> None:
    """Around the frame there is nothing, where Pillow fills in the palette's first colour."""
    inside = Image.new("P", (4, 2), 1)
    inside.putpalette([255, 0, 0, 0, 0, 0])
    content = bytearray(saved(inside, "GIF"))
    content[6:10] = struct.pack("<HH", 6, 4)
    at = content.index(b",")
    content[at + 1 : at + 5] = struct.pack("<HH", 1, 1)
    (tmp_path / "a.gif").write_bytes(content)
    expected = np.full((4, 6), 255)
    expected[1:3, 1:5] = 0
    np.testing.assert_array_equal(pixels(tmp_path / "a.gif")[..., 1], expected)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    (tmp_path / "a").write_bytes(content)
    np.testing.assert_array_equal(pixels(tmp_path / "a"), np.asarray(frames[0]))


def test_several_pages_are_refused(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.tif", save_all=True, append_images=[halves()])
    with pytest.raises(UserError, match=r"a.tif cannot be read: it has several pages"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("mode", "why"), [("I", "signed"), ("F", "floating"), ("LAB", "LAB")])
def test_numbers_without_a_range_are_refused(mode: str, why: str, tmp_path: Path) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=rf"a.tif cannot be read: it has {why}.*range is unknown"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "1"), ("PNG", "P"), ("TIFF", "CMYK"), ("JPEG", "CMYK"), ("BMP", "L")]
)
def test_other_modes_show_their_colours(kind: str, mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), WHITE).convert(mode).save(tmp_path / "a", kind)
    assert pixels(tmp_path / "a").min() == 255


def test_colours_of_a_profile_become_srgb(tmp_path: Path) -> None:
    """This profile swaps red and green; a profile of sRGB changes nothing."""
    path = tmp_path / "a.png"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    halves().save(path, icc_profile=srgb)
    np.testing.assert_array_equal(pixels(path), np.asarray(halves()))
    swapped = srgb.replace(b"rXYZ", b"xXYZ").replace(b"gXYZ", b"rXYZ").replace(b"xXYZ", b"gXYZ")
    assert swapped != srgb
    halves().save(path, icc_profile=swapped)
    found = pixels(path)
    assert found[40, 40].tolist() == pytest.approx([0, 255, 0], abs=2)
    assert found[90, 40].tolist() == pytest.approx([0, 0, 255], abs=2)
    square("RGBA", (255, 0, 0, 255), (0, 0, 0, 0)).save(path, icc_profile=swapped)
    found = pixels(path)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[6, 6].tolist() == pytest.approx([0, 255, 0], abs=2)


@pytest.mark.parametrize("profile", [b"no profile", b"\0" * 128])
def test_a_damaged_profile_changes_nothing(profile: bytes, tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(halves()))


def test_a_gamma_that_is_no_screens_is_applied(tmp_path: Path) -> None:
    path, gray = tmp_path / "a.png", saved(Image.new("L", (4, 4), 55), "PNG")
    for gamma, level in ((45455, 55), (100000, round(255 * (55 / 255) ** (1 / 2.2)))):
        path.write_bytes(with_chunk(gray, chunk(b"gAMA", struct.pack(">I", gamma))))
        assert set(pixels(path).ravel().tolist()) == {level}


def test_texts_of_any_size_are_ignored(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    for number in range(3):
        texts.add_text(f"k{number}", "x" * 2**21, zip=True)
    halves().save(tmp_path / "a.png", pnginfo=texts)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), np.asarray(halves()))


def test_plain_files_are_known_by_their_bytes_and_others_by_the_opener_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = tmp_path / "a.png", tmp_path / "b.png"
    halves().save(plain)
    square("LA", (0, 255), (0, 0)).save(other)
    before = {path: image_sha256(path) for path in (plain, other)}
    assert before[plain] == sha256(plain.read_bytes()).hexdigest()
    assert before[other] != sha256(other.read_bytes()).hexdigest()
    monkeypatch.setattr(images, "OPENER", images.OPENER + 1)
    monkeypatch.setattr(images, "_keys", {})
    assert image_sha256(plain) == before[plain]
    assert image_sha256(other) != before[other]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "turned JPEG", "turned PNG"])
def test_a_server_is_sent_the_same_pixels(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if "turned" in kind else 1
    path = tmp_path / "a.png"
    path.write_bytes(saved(halves(), kind.split()[-1], exif=exif))
    head, _, encoded = image_url(path).partition(",")
    assert head == f"data:image/{'jpeg' if kind == 'JPEG' else 'png'};base64"
    sent = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert not sent.getexif() or kind == "JPEG"
    np.testing.assert_array_equal(np.asarray(sent.convert("RGB")), pixels(path))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    content = saved(halves(), "PNG")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, why in (
        ("none.png", "none.png is missing"),
        ("pipe.png", "pipe.png is not a file"),
        ("loop.png", "symbolic links"),
        ("", "is not a file"),
    ):
        with pytest.raises(UserError, match=f"cannot be read.*{why}"):
            open_image(tmp_path / name)
    for damaged, why in (
        (b"", "it is empty"),
        (content[:-60], "it is cut off"),
        (content[:-1], "it is cut off"),
        (content[:8], "it is cut off"),
        (content[:60] + b"x" + content[61:], "it is damaged: the checksum of its IDAT is wrong"),
        (saved(halves(), "JPEG")[:-60], "it is damaged .image file is truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is none of JPEG, PNG"),
        (png((30_000, 29), 1, 0, b""), "it has 30000 x 29 pixels: no model can see such a strip"),
        (png((10_000, 9_000), 1, 0, b""), "it has 10000 x 9000 pixels, more than 89,478,485"),
        (png((20_000, 9_000), 1, 0, b""), "it has too many pixels"),
    ):
        path.write_bytes(damaged)
        for door in (open_image, opened_sha256, image_url):
            with pytest.raises(UserError, match=rf"a\.png cannot be read: {why}"):
                door(path)
        assert image_sha256(path) != sha256(damaged).hexdigest()  # what older openers took it for


def test_a_switch_that_fills_damaged_images_with_black_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(saved(halves(), "PNG"))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UserError, match=r"a\.png .*LOAD_TRUNCATED_IMAGES is on"):
        open_image(tmp_path / "a.png")
