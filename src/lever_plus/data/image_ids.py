"""Gives every image one id: files may use an id for two images, or list one image under two ids.

Splits, pools and resampling go by image ids. So images are compared by content here, before
anything is split. Ids that are right already are not changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import stat_result
from pathlib import Path
from typing import Final

from tqdm import tqdm

from lever_plus.data.examples import Example, fresh_ids
from lever_plus.data.images import bytes_sha256
from lever_plus.errors import UserError

READERS: Final = 4
"""Threads that read images."""


def with_image_ids(splits: Mapping[str, Sequence[Example]]) -> dict[str, list[Example]]:
    """Return splits in which examples have the same image id exactly if they show the same image.

    An image keeps the first id that it has, unless another image before it has that id; then it
    gets a new one, above all others if possible. Images are equal if their files' bytes are.

    Raises:
        UserError: An image cannot be read.
    """
    examples = [example for split in splits.values() for example in split]
    contents = _contents(dict.fromkeys(example.image for example in examples))
    fresh = fresh_ids(example.image_id for example in examples)
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for example in examples:
        content = contents[example.image]
        if content not in ids:
            ids[content] = next(fresh) if example.image_id in taken else example.image_id
            taken.add(ids[content])
    return {
        split: [replace(example, image_id=ids[contents[example.image]]) for example in rows]
        for split, rows in splits.items()
    }


def _contents(paths: Iterable[str]) -> dict[str, str]:
    """Return {path: a text that is the same for equal files}; a file of unique size is not read."""
    stats = {path: _stat(path) for path in paths}
    files: dict[int, set[tuple[int, int]]] = {}
    for found in stats.values():
        files.setdefault(found.st_size, set()).add((found.st_dev, found.st_ino))
    alike = [path for path, found in stats.items() if len(files[found.st_size]) > 1]
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(bytes_sha256, alike)
        bar = tqdm(read, "compare images", len(alike), leave=False, disable=None)
        hashes = dict(zip(alike, bar, strict=True))
    return {path: hashes.get(path, f"{found.st_size} bytes") for path, found in stats.items()}


def _stat(path: str) -> stat_result:
    try:
        return Path(path).stat()
    except OSError as error:
        raise UserError(f"image {path} cannot be read ({error.strerror}): restore it.") from error
