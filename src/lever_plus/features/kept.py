"""Unit features by content, in memory and, where a folder is given, in a SQLite file."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from lever_plus.errors import UserError
from lever_plus.features.whitening import Array

KEY_BYTES: Final = 16
CHECK_BYTES: Final = 8
MOST: Final = 2**20
"""Rows of a kind that are in memory: a server is asked new questions for as long as it runs."""
WAIT_S: Final = 60.0
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS feature (kind TEXT NOT NULL, key BLOB NOT NULL, row BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID"
)
Rows = dict[bytes, Array]


def remember(held: dict[Any, Array], rows: Mapping[Any, Array]) -> None:
    """Add rows to those in memory; of more than `MOST`, the oldest are forgotten."""
    held.update(rows)
    for key in list(islice(held, max(0, len(held) - MOST))):
        held.pop(key, None)


class KeptFeatures:
    """What one encoder has encoded; it only saves time.

    Threads may ask at once, and processes may share the folder. A question more is a row more in
    the file, whatever else it holds.
    """

    def __init__(self, folder: Path | None, encoder: str) -> None:
        """Name the folder (None: memory alone) and the encoder's hash, which its file has."""
        self._path = folder and folder / f"{encoder[:16]}.sqlite"
        self._found: dict[str, Rows] = {}

    def rows(
        self, kind: str, contents: Sequence[str], encode: Callable[[Sequence[str]], Array]
    ) -> Array:
        """Return the features of contents, [n, dimensions]; `encode` makes what is missing.

        Args:
            kind: "image" or "text".
            contents: Texts, or hashes of images.
            encode: Makes the features of distinct contents.

        Raises:
            UserError: The folder cannot be written to.
        """
        keys = {content: _key(content) for content in contents}
        found = self._known(kind, keys.values())
        missing = [content for content, key in keys.items() if key not in found]
        if missing:
            made = encode(missing)
            if any(row.shape != made.shape[1:] for row in found.values()):
                # What was kept is of another encoder.
                missing, made = list(keys), encode(list(keys))
            fresh = {keys[content]: row for content, row in zip(missing, made, strict=True)}
            self._keep(kind, fresh)
            found |= fresh
        return np.stack([found[keys[content]] for content in contents])

    def _known(self, kind: str, keys: Iterable[bytes]) -> Rows:
        held = self._found.setdefault(kind, {})
        wanted = list(dict.fromkeys(keys))
        found = {key: held[key] for key in wanted if key in held}
        if self._path is not None and self._path.is_file() and len(found) < len(wanted):
            read = self._read(kind, [key for key in wanted if key not in found])
            remember(held, read)
            found |= read
        return found

    def _read(self, kind: str, keys: Sequence[bytes]) -> Rows:
        query = "SELECT row FROM feature WHERE kind = ? AND key = ?"
        try:
            with self._opened() as connection:
                answers = [connection.execute(query, (kind, key)).fetchone() for key in keys]
        except sqlite3.DatabaseError:
            return {}  # made again
        stored = {key: answer[0] for key, answer in zip(keys, answers, strict=True) if answer}
        found = {key: _row(key, content) for key, content in stored.items()}
        return {key: row for key, row in found.items() if row is not None}

    def _keep(self, kind: str, rows: Rows) -> None:
        """Remember rows, and write them; a file that is damaged is made anew."""
        remember(self._found.setdefault(kind, {}), rows)
        if self._path is None:
            return
        stored = [(kind, key, _content(key, row)) for key, row in rows.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(stored)
            except sqlite3.OperationalError:  # a full disk, a lock: the file is whole
                raise
            except sqlite3.DatabaseError:
                for path in (self._path, Path(f"{self._path}-journal")):
                    path.unlink(missing_ok=True)
                self._write(stored)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{self._path} can't be written ({error}); it only saves time. Make room, let this "
                "user write there, or name another folder for features."
            ) from error

    def _write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        with self._opened() as connection, connection:
            connection.execute(TABLE)
            connection.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(str(self._path), timeout=WAIT_S)) as connection:
            # Rows have checks of their own: after a power cut, what is damaged is made again.
            connection.execute("PRAGMA synchronous = OFF")
            yield connection


def _key(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()


def _content(key: bytes, row: Array) -> bytes:
    """Return what is kept of a row: its numbers, and a check."""
    numbers = np.ascontiguousarray(row, dtype=np.float32).tobytes()
    return numbers + hashlib.blake2b(numbers, key=key, digest_size=CHECK_BYTES).digest()


def _row(key: bytes, content: object) -> Array | None:
    """Return a row that was kept, or None if it is damaged."""
    if not isinstance(content, bytes) or len(content) % 4 or len(content) <= CHECK_BYTES:
        return None
    row = np.frombuffer(content[:-CHECK_BYTES], dtype=np.float32)
    return row if _content(key, row) == content else None
