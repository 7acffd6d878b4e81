"""Unit features by content, in memory and, where a folder is given, in a file for each kind."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lever_plus.features.whitening import Array

KEY_BYTES = 16


class KeptFeatures:
    """What one encoder has encoded; it only saves time."""

    def __init__(self, folder: Path | None, encoder: str) -> None:
        """Name the folder (None: memory alone) and the encoder's hash, which files are named by."""
        self._folder, self._encoder = folder, encoder
        self._found: dict[str, dict[bytes, Array]] = {}

    def rows(
        self, kind: str, contents: Sequence[str], encode: Callable[[Sequence[str]], Array]
    ) -> Array:
        """Return the features of contents, [n, dimensions]; `encode` makes what is missing.

        Args:
            kind: "image" or "text".
            contents: Texts, or hashes of images.
            encode: Makes the features of distinct contents.
        """
        if kind not in self._found:
            self._found[kind] = self._read(kind)
        found = self._found[kind]
        keys = {content: _key(content) for content in contents}
        missing = [content for content, key in keys.items() if key not in found]
        if missing:
            made = encode(missing)
            found.update(zip((keys[content] for content in missing), made, strict=True))
            self._write(kind)
        return np.stack([found[keys[content]] for content in contents])

    def _path(self, kind: str) -> Path | None:
        return self._folder and self._folder / f"{self._encoder[:16]}-{kind}.safetensors"

    def _read(self, kind: str) -> dict[bytes, Array]:
        path = self._path(kind)
        if path is None or not path.is_file():
            return {}
        try:
            stored = load_file(path)
            keys, rows = stored["keys"], stored["rows"]
        except (SafetensorError, KeyError, OSError):
            return {}  # made again
        if not _fit(keys, rows):
            return {}
        return {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}

    def _write(self, kind: str) -> None:
        path = self._path(kind)
        if path is None:
            return
        found = self._found[kind]
        keys = np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, KEY_BYTES)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"keys": keys.copy(), "rows": np.stack(list(found.values()))}, partial)
        partial.replace(path)


def _fit(keys: NDArray[Any], rows: NDArray[Any]) -> bool:
    """Return whether these are keys and finite float32 rows, as many of each."""
    dtypes = keys.dtype == np.uint8 and rows.dtype == np.float32
    shapes = rows.ndim == 2 and keys.shape == (len(rows), KEY_BYTES)
    return dtypes and shapes and bool(np.isfinite(rows).all())


def _key(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()
