"""Unit features by content, in memory and, where a folder is given, in a file for each kind."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from lever_plus.errors import UserError
from lever_plus.features.whitening import Array
from lever_plus.files.tensors import read_tensors, tensors_hash
from lever_plus.files.writing import replacing

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
            if found and next(iter(found.values())).shape != made.shape[1:]:
                found.clear()  # of another encoder: all of these are made again
                return self.rows(kind, contents, encode)
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
            stored, metadata = read_tensors(path, "it is made again", {"U8", "F32"})
            keys, rows = stored["keys"].numpy(), stored["rows"].numpy()
        except (UserError, KeyError):
            return {}  # made again
        if metadata.get("sha256") != tensors_hash(stored) or not _fit(keys, rows):
            return {}
        return {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}

    def _write(self, kind: str) -> None:
        path = self._path(kind)
        if path is None:
            return
        found = self._found[kind]
        keys = np.frombuffer(bytearray(b"".join(found)), dtype=np.uint8).reshape(-1, KEY_BYTES)
        rows = np.stack(list(found.values()))
        stored = {"keys": torch.from_numpy(keys), "rows": torch.from_numpy(rows)}
        with replacing(path) as fresh:
            save_file(stored, fresh, metadata={"sha256": tensors_hash(stored)})


def _fit(keys: NDArray[Any], rows: NDArray[Any]) -> bool:
    """Return whether these are keys and float32 rows, as many of each."""
    dtypes = keys.dtype == np.uint8 and rows.dtype == np.float32
    shapes = rows.ndim == 2 and keys.shape == (len(rows), KEY_BYTES)
    return dtypes and shapes


def _key(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()
