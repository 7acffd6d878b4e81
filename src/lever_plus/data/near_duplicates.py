"""Near-duplicate images between splits, found by perceptual hash (pHash of the imagehash library).

Image ids tell only images apart that were registered as one; a photograph that was saved twice
leaks just as well. What is found is reported, not removed: a hash of 64 bits has false alarms.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.errors import needs

READERS: Final = 2
LARGEST_BLOCK: Final = 8_000_000
"""Pairs of hashes that are compared at once."""


class Pair(NamedTuple):
    """Two images of different splits, and in how many of 64 bits their hashes differ."""

    first: str
    second: str
    bits: int


def near_duplicates(splits: Mapping[str, Sequence[Example]], bits: int) -> list[Pair]:
    """Return all pairs of images in different splits whose hashes differ in at most `bits` bits."""
    paths = {split: sorted({e.image for e in rows}) for split, rows in splits.items()}
    hashes = {split: perceptual_hashes(rows) for split, rows in paths.items()}
    return [
        Pair(paths[one][i], paths[two][j], distance)
        for one, two in combinations(splits, 2)
        for i, j, distance in _close(hashes[one], hashes[two], bits)
    ]


def perceptual_hashes(paths: Sequence[str]) -> NDArray[np.uint64]:
    """Return the 64-bit pHash of every image file.

    Raises:
        UserError: An image cannot be read, or imagehash is not installed.
    """
    with needs("pipeline", "data.near_duplicate_bits", "set it to null"):
        import imagehash

    def compute(path: str) -> int:
        return int(str(imagehash.phash(open_image(path))), 16)

    with ThreadPoolExecutor(READERS) as readers:
        bar = tqdm(readers.map(compute, paths), "image hashes", len(paths), disable=None)
        return np.fromiter(bar, dtype=np.uint64, count=len(paths))


def _close(
    one: NDArray[np.uint64], two: NDArray[np.uint64], bits: int
) -> Iterator[tuple[int, int, int]]:
    rows = max(1, LARGEST_BLOCK // max(1, len(two)))
    for start in range(0, len(one), rows):
        distances = np.bitwise_count(one[start : start + rows, None] ^ two)
        for i, j in np.argwhere(distances <= bits):
            yield int(start + i), int(j), int(distances[i, j])
