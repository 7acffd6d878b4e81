"""Whether a JPEG's pixels are all there: a decoder makes gray ones, or others, of damaged data.

Decoders warn of that at best, and Pillow does not even pass on the warning. What can be told is how
far the data reach: damage that moves what comes behind it leaves data over, or ends them too early.
A progressive picture, and a stretch between two restart marks, can't be checked in this way.
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
"""Marks without a length."""
AFTER_DATA: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
RESTART: Final = re.compile(rb"\xff+[\xd0-\xd7]")
SPARE: Final = 64
"""Bytes that decoders look ahead, or that cameras leave at the end."""
SPARE_SHARE: Final = 0.01
GROUNDS: Final = (77, 178)
"""What a picture is drawn upon, to see which rows are; two, for a row may be like one of them."""


class _Scan(NamedTuple):
    """The only scan of a picture: where its data begin and end, and restart marks it should have.

    restarts: None where there are no restart marks.
    """

    start: int
    end: int
    restarts: int | None


def check_jpeg(content: bytes) -> None:
    """Refuse a JPEG whose data end before its last row, or go on after it.

    Raises:
        NotShowableError: It is damaged.
    """
    scan = _scan(content)
    if scan is None:
        return
    data = content[scan.start : scan.end]
    if scan.restarts is not None and len(RESTART.findall(data)) != scan.restarts:
        raise NotShowableError("is damaged: a stretch of its pixels is missing")
    data = data.rstrip(b"\0")
    spare = max(SPARE, round(SPARE_SHARE * len(data)))
    most = content[: scan.start + max(0, len(data) - spare)]
    early, there = _last_row_is_there(most, content[len(most) : scan.end] + bytes(SPARE))
    if early and len(data) > 2 * spare:
        raise NotShowableError("is damaged: its pixels end before its data")
    if not there:
        raise NotShowableError("is damaged: its data end before its pixels")


def _scan(content: bytes) -> _Scan | None:
    """Return the scan of a sequential picture; None of any other, and of what is none."""
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
    """Return how many units, with blocks of all colours, a frame has."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    samplings = frame[7::3]
    # With one colour alone, a unit is a block, whatever its sampling says.
    across = max(s >> 4 for s in samplings) if len(samplings) > 1 else 1
    down = max(s & 15 for s in samplings) if len(samplings) > 1 else 1
    return -(-width // (8 * max(1, across))) * -(-height // (8 * max(1, down)))


def _last_row_is_there(*parts: bytes) -> list[bool]:
    """Return, after each part of a file without its end mark, whether a decoder has all rows."""
    there = [False] * len(parts)
    for ground in GROUNDS:
        for number, changed in enumerate(_last_row_changes(parts, ground)):
            there[number] |= changed
        if there[-1]:
            break
    return there


def _last_row_changes(parts: Sequence[bytes], ground: int) -> Iterator[bool]:
    """Yield, after each part, whether the last row is another than the ground drawn upon."""
    with JpegImageFile(BytesIO(b"".join(parts))) as image:
        image.draft("L", (1, 1))  # an eighth of the size: most of the work is left out
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
