"""Flowcharts of Mermaid as pictures: GitHub draws them by itself, and the site loads no script.

Only what the pages need: `flowchart LR` and lines `a --> b`. Any other diagram stays code.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Final

BLOCK: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ARROW: Final = re.compile(r"\s*([\w-]+) --> ([\w-]+)\s*")
HEIGHT: Final = 34
GAP: Final = 24
"""Between boxes, in pixels."""
Lane = tuple[str, str, int]
"""Where an arrow between two nodes crosses a row."""
LETTER: Final = 8.5
"""Width of a letter, at most."""


def with_pictures(markdown: str) -> str:
    """Return a page with a picture in place of each flowchart."""
    return BLOCK.sub(lambda block: _picture(block[1]) or block[0], markdown)


def _picture(text: str) -> str:
    """Return the picture of a flowchart, nothing if it is another diagram."""
    first, *lines = [line for line in text.splitlines() if line.strip()]
    found = [ARROW.fullmatch(line) for line in lines]
    if first.strip() != "flowchart LR" or not found or not all(found):
        return ""
    arrows = [(arrow[1], arrow[2]) for arrow in found if arrow]
    rows = rows_of(arrows)
    return "" if rows is None else _drawn(arrows, rows)


def rows_of(arrows: Sequence[tuple[str, str]]) -> list[list[str]] | None:
    """Return the nodes by row, each below all that lead to it; None for a circle."""
    names = list(dict.fromkeys(name for arrow in arrows for name in arrow))
    depth = dict.fromkeys(names, 0)
    for _ in names:
        before = dict(depth)
        for start, end in arrows:
            depth[end] = max(depth[end], depth[start] + 1)
        if depth == before:
            rows = range(max(depth.values()) + 1)
            return [[name for name in names if depth[name] == row] for row in rows]
    return None


def _drawn(arrows: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """Return a picture from top to bottom: a long chain would be too small on one line.

    An arrow over several rows has a lane of its own in each, so that it crosses no box.
    """
    depth = {name: number for number, row in enumerate(rows) for name in row}
    lanes = [(a, b, row) for a, b in arrows for row in range(depth[a] + 1, depth[b])]
    named: list[list[str | Lane]] = [
        [*row, *(lane for lane in lanes if lane[2] == number)] for number, row in enumerate(rows)
    ]
    widths = [[_width(each) for each in row] for row in named]
    totals = [sum(row) + GAP * (len(row) - 1) for row in widths]
    middles: dict[str | Lane, float] = {}
    for row, sizes, total in zip(named, widths, totals, strict=True):
        left = 1 + (max(totals) - total) / 2
        for each, width in zip(row, sizes, strict=True):
            middles[each] = left + width / 2
            left += width + GAP
    wide, high = max(totals) + 2, _top(len(rows)) - GAP + 1
    said = escape(", ".join(f"{start} to {end}" for start, end in arrows))
    parts = [_box(name, middles[name], _top(number)) for name, number in depth.items()]
    for start, end in arrows:
        between = range(depth[start] + 1, depth[end])
        points = [(middles[start, end, row], float(_top(row))) for row in between]
        first = (middles[start], float(_top(depth[start])))
        parts.append(_line([first, *points, (middles[end], float(_top(depth[end])))]))
    return (
        f'<figure class="flowchart"><svg width="{wide:.0f}" height="{high:.0f}" role="img" '
        f'aria-label="{said}">' + "".join(parts) + "</svg></figure>"
    )


def _width(each: str | Lane) -> float:
    """Return the width of a box, or of a lane."""
    return LETTER * len(each) + 18 if isinstance(each, str) else 4


def _top(row: int) -> int:
    return 1 + row * (HEIGHT + GAP)


def _box(name: str, middle: float, top: int) -> str:
    width = _width(name)
    return (
        f'<rect x="{middle - width / 2:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT}" '
        f'rx="5"/><text x="{middle:.0f}" y="{top + HEIGHT // 2 + 5}">{escape(name)}</text>'
    )


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Return an arrow through the middles and tops of boxes and lanes, one in each row."""
    x, y = points[0][0], points[0][1] + HEIGHT
    path = f"M{x:.0f} {y:.0f}"
    for number, (to_x, to_y) in enumerate(points[1:], start=2):
        end = to_y - 7 if number == len(points) else to_y
        half = (y + end) / 2
        path += f"C{x:.0f} {half:.0f} {to_x:.0f} {half:.0f} {to_x:.0f} {end:.0f}"
        x, y = to_x, to_y
        if number < len(points):
            y += HEIGHT
            path += f"V{y:.0f}"
    return f'<path d="{path}"/><path class="tip" d="M{x:.0f} {y:.0f}l-4 -8h8z"/>'
