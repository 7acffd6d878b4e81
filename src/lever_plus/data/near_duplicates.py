"""Finds near-duplicate images in different splits by perceptual hash (pHash of imagehash).

Equal image ids show only that two files are the same bytes. A photograph that was saved twice
leaks answers just as well. What is found is reported, not removed: a hash of 64 bits raises false
alarms.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.errors import UserError, needs

READERS: Final = 2
"""Threads that open and hash images."""
LARGEST_BLOCK: Final = 8_000_000
"""Pairs of hashes that are compared at once."""
LARGEST_FOUND: Final = 1_000_000
"""Pairs that are listed at most; images of one colour are all alike, so there can be billions."""


class Pair(NamedTuple):
    """Paths of two images in different splits, and in how many of 64 bits their hashes differ."""

    first: str
    second: str
    bits: int


def near_duplicates(splits: Mapping[str, Sequence[Example]], bits: int) -> list[Pair]:
    """Return all pairs of images in different splits whose hashes differ in at most `bits` bits.

    Raises:
        UserError: There are more than `LARGEST_FOUND`, too many to look through.
    """
    paths = {split: sorted({e.image for e in rows}) for split, rows in splits.items()}
    hashes = {split: perceptual_hashes(rows) for split, rows in paths.items()}
    pairs = [
        Pair(paths[one][i], paths[two][j], distance)
        for one, two, (i, j, distance) in islice(_all_close(hashes, bits), LARGEST_FOUND + 1)
    ]
    if len(pairs) > LARGEST_FOUND:
        raise UserError(
            f"more than {LARGEST_FOUND:,} pairs of images in different splits differ in at most "
            f"{bits} bits (data.near_duplicate_bits), such as {pairs[0].first} and "
            f"{pairs[0].second}: lower it, or leave out images that show almost nothing."
        )
    return pairs


def perceptual_hashes(paths: Sequence[str]) -> NDArray[np.uint64]:
    """Return the 64-bit pHash of every image file, uint64 [paths].

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


def _all_close(
    hashes: Mapping[str, NDArray[np.uint64]], bits: int
) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """Yield (one split, another split, (position in one, position in the other, distance))."""
    for one, two in combinations(hashes, 2):
        for found in _close(hashes[one], hashes[two], bits):
            yield one, two, found


def _close(
    one: NDArray[np.uint64], two: NDArray[np.uint64], bits: int
) -> Iterator[tuple[int, int, int]]:
    rows = max(1, LARGEST_BLOCK // max(1, len(two)))
    for start in range(0, len(one), rows):
        distances = np.bitwise_count(one[start : start + rows, None] ^ two)
        for i, j in np.argwhere(distances <= bits):
            yield int(start + i), int(j), int(distances[i, j])
