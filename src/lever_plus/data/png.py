"""What Pillow ignores or refuses in a PNG: wrong checksums, missing rows, large profiles."""

import struct
import zlib
from typing import Final, NamedTuple

from lever_plus.data.pixels import NotShowableError

MARK: Final = b"\x89PNG\r\n\x1a\n"
PIXELS: Final = (b"IHDR", b"PLTE", b"IDAT")
TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
ORIENTING: Final = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
"""Keywords of texts that can tell which way up a PNG is."""
SRGB: Final = bytes([1, 13, 0, 1])
"""Primaries, transfer, matrix and range of sRGB, as a cICP chunk gives them."""
LARGE_PROFILE: Final = 2**20
"""Bytes of a profile from which on Pillow refuses the file."""
LARGEST_PROFILE: Final = 2**25
CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers per pixel, by the colour type."""
PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
LAST_PASS: Final = (0, 1, 1, 2)
"""The last of seven passes of interlaced pixels: first column and row, steps to the next ones."""
BLOCK: Final = 2**20


class Readable(NamedTuple):
    """A file as Pillow can read it.

    Attributes:
        content: Its bytes.
        profile: Its colour profile, if that is too large for Pillow.
        header: The content of a PNG's header chunk; empty in other formats.
        pixels: The content of a PNG's pixel chunks, still compressed; empty in other formats.
    """

    content: bytes
    profile: bytes | None = None
    header: bytes = b""
    pixels: bytes = b""


def readable_png(content: bytes) -> Readable:
    """Return a PNG without its texts, for which Pillow has limits; other formats unchanged.

    Raises:
        NotShowableError: It is cut off, a checksum is wrong, its colours are for a screen that
            shows more than sRGB, or its profile is larger than `LARGEST_PROFILE`.
    """
    if not content.startswith(MARK):
        return Readable(content)
    chunks, start, pixels, profile = [MARK], len(MARK), [], None
    while chunks[-1][4:8] != b"IEND":
        (length,) = struct.unpack(">I", content[start : start + 4].rjust(4, b"\0"))
        chunk = content[start : start + length + 12]
        if len(chunk) < length + 12:
            raise NotShowableError("is cut off")
        start += len(chunk)
        kind, data, checksum = chunk[4:8], chunk[8:-4], struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in PIXELS and chunk[-4:] != checksum:
            raise NotShowableError(f"is damaged: the checksum of its {kind.decode()} is wrong")
        if kind == b"cICP" and data != SRGB:
            raise NotShowableError("has colours for another kind of screen than sRGB (cICP)")
        if kind == b"iCCP" and (large := _large_profile(data)) is not None:
            profile = large
        elif kind not in TEXTS or data.startswith(ORIENTING):
            chunks.append(chunk)
        if kind == b"IDAT":
            pixels.append(data)
    return Readable(b"".join(chunks), profile, chunks[1][8:-4], b"".join(pixels))


def _large_profile(data: bytes) -> bytes | None:
    """Return a profile that is too large for Pillow; None if it is smaller, or damaged."""
    packed = data.partition(b"\0")[2][1:]
    try:
        profile = zlib.decompressobj().decompress(packed, LARGEST_PROFILE + 1)
    except zlib.error:
        return None
    if len(profile) > LARGEST_PROFILE:
        raise NotShowableError(f"has a colour profile of more than {LARGEST_PROFILE:,} bytes")
    return profile if len(profile) >= LARGE_PROFILE else None


def check_rows(file: Readable) -> None:
    """Refuse pixels that end before the last row, which Pillow would complete with black rows.

    Raises:
        NotShowableError: Rows are missing.
    """
    try:
        width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", file.header)
        channels = CHANNELS[colours]
    except (struct.error, KeyError):
        return  # Pillow will say what is wrong with the header
    passes = (*PASSES, LAST_PASS) if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits * channels + 7) // 8)
    found, packed, unpacked = 0, file.pixels, zlib.decompressobj()
    try:
        while packed and found < expected and not unpacked.eof:
            found += len(unpacked.decompress(packed, BLOCK))
            packed = unpacked.unconsumed_tail
    except zlib.error:
        return  # Pillow will say what is wrong with the pixels
    if found < expected:
        raise NotShowableError(f"lacks pixels: it has {found:,} of {expected:,} bytes")
