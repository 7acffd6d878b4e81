"""What Pillow passes over or stumbles over in a PNG: checksums, lacking rows, large profiles."""

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
"""Primaries, transfer, matrix and range that a cICP chunk gives for sRGB."""
LARGE_PROFILE: Final = 2**20
"""Bytes, from which Pillow refuses the file for its profile."""
LARGEST_PROFILE: Final = 2**25
CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers a pixel, by the type of colours."""
PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
LAST_PASS: Final = (0, 1, 1, 2)
"""Of interlaced pixels: the first column and row, and the steps to the next ones."""
BLOCK: Final = 2**20


class Readable(NamedTuple):
    """A file as Pillow can read it.

    content: its bytes; profile: that of its colours, where Pillow could not read it; header,
    pixels: what the chunks hold, still packed; empty in other formats than PNG.
    """

    content: bytes
    profile: bytes | None = None
    header: bytes = b""
    pixels: bytes = b""


def readable_png(content: bytes) -> Readable:
    """Return a PNG without its texts, which Pillow reads and limits; other bytes as they are.

    Raises:
        NotShowableError: It is cut off, its pixels' checksum is wrong, its colours are those of a
            screen that shows more than sRGB, or its profile is larger than any.
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
            raise NotShowableError("has colours of another kind of screen (cICP)")
        if kind == b"iCCP" and (large := _large_profile(data)) is not None:
            profile = large
        elif kind not in TEXTS or data.startswith(ORIENTING):
            chunks.append(chunk)
        if kind == b"IDAT":
            pixels.append(data)
    return Readable(b"".join(chunks), profile, chunks[1][8:-4], b"".join(pixels))


def _large_profile(data: bytes) -> bytes | None:
    """Return a profile that Pillow takes for an attack; None if it is smaller, or damaged."""
    packed = data.partition(b"\0")[2][1:]
    try:
        profile = zlib.decompressobj().decompress(packed, LARGEST_PROFILE + 1)
    except zlib.error:
        return None
    if len(profile) > LARGEST_PROFILE:
        raise NotShowableError(f"has a colour profile of more than {LARGEST_PROFILE:,} bytes")
    return profile if len(profile) >= LARGE_PROFILE else None


def check_rows(file: Readable) -> None:
    """Refuse pixels that end, as if they were all, before the last row: Pillow adds black ones.

    Raises:
        NotShowableError: Rows are missing.
    """
    try:
        width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", file.header)
        channels = CHANNELS[colours]
    except (struct.error, KeyError):
        return  # Pillow says what is wrong with a header
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
        return  # Pillow says so
    if found < expected:
        raise NotShowableError(f"lacks pixels: it has {found:,} bytes of {expected:,}")
