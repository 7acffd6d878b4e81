"""Cards: a handwritten digit in coloured ink, in one corner of a sheet of patterned paper.

The scans are the UCI digits bundled with scikit-learn (Alpaydin & Kaynak 1998): 1,797 real scans
of 8 x 8 pixels. No scan is in more than one split.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INKS: Final = (
    (196, 30, 40),
    (35, 70, 200),
    (25, 140, 60),
    (130, 50, 170),
    (120, 75, 35),
    (20, 20, 25),
)
"""RGB of each ink, in the order of VALUES["ink"]."""
LINE: Final = 45
"""How much darker than the paper a pattern's lines are (0-255)."""
PERIOD: Final = 56
"""Distance between pattern lines in a card of 224 pixels; in one of 32 pixels it is 8."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a card shows: the row of its scan in the digits data, and the index of each value."""

    scan: int
    digit: int
    ink: int
    pattern: int
    corner: int

    def value(self, attribute: str) -> int:
        """Return the value index of one attribute ("digit", "ink", "pattern" or "corner")."""
        return int(getattr(self, attribute))


@cache
def scans() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return all scans, float [1797, 8, 8] in [0, 1], and their digits, int [1797]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)


def draw_card(rng: np.random.Generator, scan_ids: NDArray[np.int64]) -> Card:
    """Draw a card with one of the scans `scan_ids` (rows); the other values are uniform."""
    scan = int(rng.choice(scan_ids))
    ink, pattern, corner = (int(rng.integers(n)) for n in (len(INKS), 5, 4))
    return Card(scan=scan, digit=int(scans()[1][scan]), ink=ink, pattern=pattern, corner=corner)


def render(card: Card, size: int, rng: np.random.Generator) -> Image.Image:
    """Render a card as an RGB image of size x size pixels; position and paper vary a little."""
    tint = rng.integers(225, 256, size=3)
    paper = np.broadcast_to(tint, (size, size, 3)).astype(np.float32)
    paper = paper - LINE * _pattern(card.pattern, size, int(rng.integers(PERIOD // 4)))[..., None]
    return Image.fromarray(_stamp(paper, card, size, rng).round().clip(0, 255).astype(np.uint8))


@cache
def _pattern(pattern: int, size: int, shift: int) -> NDArray[np.float32]:
    """Return the mask [size, size] of a pattern's lines: blank, stripes, dots, checks, diagonal."""
    period = max(2, PERIOD * size // 224)
    y, x = np.indices((size, size)) + shift * size // 224
    row, column = y % period < period // 2, x % period < period // 2
    slope = (x + y) % (2 * period) < period
    masks = (np.zeros_like(row), row, row & column, row ^ column, slope)
    return masks[pattern].astype(np.float32)


def _stamp(
    paper: NDArray[np.float32], card: Card, size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Blend the scan onto the paper, in its ink, in its corner's quadrant."""
    side = int(size * rng.uniform(0.44, 0.47))
    glyph = Image.fromarray((scans()[0][card.scan] * 255).astype(np.uint8))
    alpha = np.asarray(glyph.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    top = (
        size // 2 * (card.corner // 2)
        + (size // 2 - side) // 2
        + int(rng.integers(-size // 112, size // 112 + 1))
    )
    left = (
        size // 2 * (card.corner % 2)
        + (size // 2 - side) // 2
        + int(rng.integers(-size // 112, size // 112 + 1))
    )
    area = paper[top : top + side, left : left + side]
    ink = np.asarray(INKS[card.ink], dtype=np.float32)
    area[:] = area * (1 - alpha[..., None]) + ink * alpha[..., None]
    return paper
