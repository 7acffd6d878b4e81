"""A cache of unit-length features by content: in memory and, if a folder is given, in SQLite."""

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
"""Rows of a kind that are kept in memory: a server gets new questions for as long as it runs."""
WAIT_S: Final = 60.0
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS feature (kind TEXT NOT NULL, key BLOB NOT NULL, row BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID"
)
Rows = dict[bytes, Array]


def remember(held: dict[Any, Array], rows: Mapping[Any, Array]) -> None:
    """Add rows to those in memory; if there are more than `MOST`, forget the oldest."""
    held.update(rows)
    for key in list(islice(held, max(0, len(held) - MOST))):
        held.pop(key, None)


class KeptFeatures:
    """The features that one encoder has computed; keeping them only saves time.

    Several threads may use it at the same time, and several processes may share the folder. A new
    text or image adds one row to the file, however large that is.
    """

    def __init__(self, folder: Path | None, encoder: str) -> None:
        """Open the cache.

        Args:
            folder: Folder of the SQLite file; None: keep features only in memory.
            encoder: Hash of the encoder, from which the file has its name.
        """
        self._path = folder and folder / f"{encoder[:16]}.sqlite"
        self._found: dict[str, Rows] = {}

    def rows(
        self, kind: str, contents: Sequence[str], encode: Callable[[Sequence[str]], Array]
    ) -> Array:
        """Return the features of contents, float32 [n, dimensions]; `encode` makes missing ones.

        Args:
            kind: "image" or "text".
            contents: Texts, or hashes of images.
            encode: Computes the features of distinct contents.

        Raises:
            UserError: The folder cannot be written to.
        """
        keys = {content: _key(content) for content in contents}
        found = self._known(kind, keys.values())
        missing = [content for content, key in keys.items() if key not in found]
        if missing:
            made = encode(missing)
            if any(row.shape != made.shape[1:] for row in found.values()):
                # What was kept comes from another encoder.
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
        """Keep rows in memory and in the file; a damaged file is replaced by a new one."""
        remember(self._found.setdefault(kind, {}), rows)
        if self._path is None:
            return
        stored = [(kind, key, _content(key, row)) for key, row in rows.items()]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._write(stored)
            except sqlite3.OperationalError:  # a full disk or a lock: the file is not damaged
                raise
            except sqlite3.DatabaseError:
                for path in (self._path, Path(f"{self._path}-journal")):
                    path.unlink(missing_ok=True)
                self._write(stored)
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"{self._path} can't be written ({error}); it only saves time. Free some space, "
                "allow this user to write there, or name another folder for features."
            ) from error

    def _write(self, rows: Sequence[tuple[str, bytes, bytes]]) -> None:
        with self._opened() as connection, connection:
            connection.execute(TABLE)
            connection.executemany("INSERT OR REPLACE INTO feature VALUES (?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(str(self._path), timeout=WAIT_S)) as connection:
            # Each row has a checksum: what is damaged after a power cut is computed again.
            connection.execute("PRAGMA synchronous = OFF")
            yield connection


def _key(content: str) -> bytes:
    return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()


def _content(key: bytes, row: Array) -> bytes:
    """Return a row as it is stored: its numbers and a checksum."""
    numbers = np.ascontiguousarray(row, dtype=np.float32).tobytes()
    return numbers + hashlib.blake2b(numbers, key=key, digest_size=CHECK_BYTES).digest()


def _row(key: bytes, content: object) -> Array | None:
    """Return a row from its stored form, or None if it is damaged."""
    if not isinstance(content, bytes) or len(content) % 4 or len(content) <= CHECK_BYTES:
        return None
    row = np.frombuffer(content[:-CHECK_BYTES], dtype=np.float32)
    return row if _content(key, row) == content else None
