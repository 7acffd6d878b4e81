"""Checks that all pixels of a JPEG are there: a decoder turns damaged data into gray or wrong ones.

Decoders at most warn of that, and Pillow does not pass the warning on. What can be checked is where
the data end: after most kinds of damage the decoder reaches the last row before the end of the
data, or the end of the data before the last row. Damage to a progressive picture, or between two
restart marks, can't be found in this way.
"""

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from lever_plus.data.pixels import NotShowableError

SEQUENTIAL: Final = (0xC0, 0xC1)
FRAMES: Final = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
SCAN: Final = 0xDA
INTERVAL: Final = 0xDD
ALONE: Final = (0x01, *range(0xD0, 0xD9))
"""Markers without a length."""
AFTER_DATA: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
RESTART: Final = re.compile(rb"\xff+[\xd0-\xd7]")
SPARE: Final = 64
"""Bytes that decoders read ahead, or that cameras add at the end."""
SPARE_SHARE: Final = 0.01
"""The same as a share of the data; the larger of the two counts."""
GROUNDS: Final = (77, 178)
"""Gray levels that a picture is drawn on to see whether its last row is decoded.

There are two, because the row itself may have one of the levels.
"""


class _Scan(NamedTuple):
    """The only scan of a picture.

    Attributes:
        start: Where its data begin in the file.
        end: Where they end.
        restarts: The number of restart markers that it must have; None if it has none at all.
    """

    start: int
    end: int
    restarts: int | None


def check_jpeg(content: bytes) -> None:
    """Refuse a JPEG whose data end before its last row, or long after it.

    Raises:
        NotShowableError: It is damaged.
    """
    scan = _scan(content)
    if scan is None:
        return
    data = content[scan.start : scan.end]
    if scan.restarts is not None and len(RESTART.findall(data)) != scan.restarts:
        raise NotShowableError("is damaged: a part of its pixels is missing")
    data = data.rstrip(b"\0")
    spare = max(SPARE, round(SPARE_SHARE * len(data)))
    most = content[: scan.start + max(0, len(data) - spare)]
    early, there = _last_row_is_there(most, content[len(most) : scan.end] + bytes(SPARE))
    if early and len(data) > 2 * spare:
        raise NotShowableError("is damaged: its pixels end before its data")
    if not there:
        raise NotShowableError("is damaged: its data end before its pixels")


def _scan(content: bytes) -> _Scan | None:
    """Return the scan of a sequential picture; None for any other, and for a damaged header."""
    at, parts, blocks, every = 2, 0, 0, 0
    while at + 4 <= len(content) and content[at] == 0xFF:
        mark = content[at + 1]
        if mark == 0xFF or mark in ALONE:
            at += 1 if mark == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        if mark in FRAMES:
            if mark not in SEQUENTIAL or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                return None
            parts, blocks = body[5], _blocks(body)
        elif mark == INTERVAL:
            every = int.from_bytes(body, "big")
        elif mark == SCAN:
            if not body or not parts or body[0] != parts:
                return None
            start = at + 2 + length
            found = AFTER_DATA.search(content, start)
            restarts = -(-blocks // every) - 1 if every else None
            return None if found is None else _Scan(start, found.start(), restarts)
        at += 2 + length
    return None


def _blocks(frame: bytes) -> int:
    """Return how many units a frame has, each with blocks of all colours (MCUs in the standard)."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    samplings = frame[7::3]
    # With one colour alone, a unit is a block, whatever its sampling says.
    across = max(s >> 4 for s in samplings) if len(samplings) > 1 else 1
    down = max(s & 15 for s in samplings) if len(samplings) > 1 else 1
    return -(-width // (8 * max(1, across))) * -(-height // (8 * max(1, down)))


def _last_row_is_there(*parts: bytes) -> list[bool]:
    """Return, for the end of each part of a file, whether a decoder has all rows by then."""
    there = [False] * len(parts)
    for ground in GROUNDS:
        for number, changed in enumerate(_last_row_changes(parts, ground)):
            there[number] |= changed
        if there[-1]:
            break
    return there


def _last_row_changes(parts: Sequence[bytes], ground: int) -> Iterator[bool]:
    """Yield, after each part, whether the last row differs from the ground that is drawn on."""
    with JpegImageFile(BytesIO(b"".join(parts))) as image:
        image.draft("L", (1, 1))  # decode at an eighth of the size, which saves most of the work
        (tile,) = image.tile
        target = Image.new(image.mode, image.size, (ground,) * len(image.getbands()))
        decoder = Image._getdecoder(image.mode, tile.codec_name, tile.args, image.decoderconfig)
        decoder.setimage(target.im, tile.extents)
        rest = b""
        for part in parts:
            rest += part
            while (used := decoder.decode(rest)[0]) > 0:
                rest = rest[used:]
            yield not (np.asarray(target)[-1] == ground).all()
        decoder.cleanup()
