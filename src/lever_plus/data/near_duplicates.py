"""Near-duplicate images between splits, found by perceptual hash (pHash of the imagehash library).

Image ids tell only images apart that were registered as one; a photograph that was saved twice
leaks just as well. What is found is reported, not removed: a hash of 64 bits has false alarms.
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
LARGEST_BLOCK: Final = 8_000_000
"""Pairs of hashes that are compared at once."""
LARGEST_FOUND: Final = 1_000_000
"""Pairs that are listed; images of one colour are all alike, so that there can be billions."""


class Pair(NamedTuple):
    """Two images of different splits, and in how many of 64 bits their hashes differ."""

    first: str
    second: str
    bits: int


def near_duplicates(splits: Mapping[str, Sequence[Example]], bits: int) -> list[Pair]:
    """Return all pairs of images in different splits whose hashes differ in at most `bits` bits.

    Raises:
        UserError: There are more than anybody looks through, so that most are false alarms.
    """
    paths = {split: sorted({e.image for e in rows}) for split, rows in splits.items()}
    hashes = {split: perceptual_hashes(rows) for split, rows in paths.items()}
    pairs = [
        Pair(paths[one][i], paths[two][j], distance)
        for one, two, (i, j, distance) in islice(_all_close(hashes, bits), LARGEST_FOUND + 1)
    ]
    if len(pairs) > LARGEST_FOUND:
        raise UserError(
            f"data.near_duplicate_bits is {bits}, and more than {LARGEST_FOUND:,} pairs of images "
            f"in different splits differ by no more, such as {pairs[0].first} and "
            f"{pairs[0].second}: lower it, or leave out images that show next to nothing."
        )
    return pairs


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


def _all_close(
    hashes: Mapping[str, NDArray[np.uint64]], bits: int
) -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """Yield every two splits with what is close in them: two positions and the distance."""
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
