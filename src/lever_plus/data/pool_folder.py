"""A pool on disk: a folder with its examples in a SQLite file, and images that came as bytes.

Adding an example writes one row, however large the pool is. A pool has one writer at a time, and
whoever has read it does not see later changes.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from lever_plus.data.examples import Example, Id, relative_image
from lever_plus.errors import UserError
from lever_plus.files.checking import Row, checked
from lever_plus.files.json_files import parse_json

FILE: Final = "pool.sqlite"
IMAGES: Final = "images"
ADVICE: Final = "name another folder, or move this one away"
APPLICATION: Final = int.from_bytes(b"LvPp", "big")
WAIT_S: Final = 60.0
TABLE: Final = (
    "CREATE TABLE example (place INTEGER PRIMARY KEY, question_id INTEGER NOT NULL UNIQUE, "
    "image TEXT NOT NULL, image_id INTEGER NOT NULL, image_sha256 TEXT NOT NULL, "
    "question TEXT NOT NULL, answer TEXT NOT NULL, answers TEXT NOT NULL)"
)
COLUMNS: Final = "question_id, image, image_id, image_sha256, question, answer, answers"


class _Stored(Row):
    """A row of the file."""

    question_id: Id
    image: str
    image_id: Id
    image_sha256: str
    question: str
    answer: str
    answers: tuple[str, ...]


class PoolFolder:
    """The examples of a pool in a folder."""

    def __init__(self, folder: str | Path, *, make: bool = True) -> None:
        """Open the folder of a pool.

        Args:
            folder: The folder.
            make: Whether to make a new pool if there is none.

        Raises:
            UserError: The folder cannot be made or used, holds no pool, or its file is not that of
                a pool.
        """
        self.folder = Path(folder)
        if not make and not (self.folder / FILE).is_file():
            raise UserError(
                f"{self.folder} holds no pool ({FILE}): name another folder, or a file with a list."
            )
        self.images = self.folder / IMAGES
        with self._opened() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")  # another process may make it at this moment
            tables = "SELECT sql FROM sqlite_master WHERE sql NOT NULL"
            found = connection.execute(tables).fetchall()
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if not found and application == 0:
                connection.execute(TABLE)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
            elif found != [(TABLE,)] or application != APPLICATION:
                raise UserError(f"{self.folder / FILE} is not a pool of Lever-Plus: {ADVICE}.")

    def read(self) -> list[Example]:
        """Return the examples, in the order in which they were added.

        Raises:
            UserError: The file is damaged, or a row of it is not an example.
        """
        with self._opened() as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM example ORDER BY place").fetchall()
        return [self._example(row) for row in rows]

    def add(self, examples: Sequence[Example]) -> None:
        """Add examples, all or none; UserError if the file cannot be written, or has their ids."""
        rows = [
            (
                example.question_id,
                relative_image(str(Path(example.image).absolute()), self.folder.absolute()),
                example.image_id,
                example.image_sha256,
                example.question,
                example.answer,
                json.dumps(example.answers),
            )
            for example in examples
        ]
        with self._opened() as connection, connection:
            connection.executemany(
                f"INSERT INTO example ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove examples by their ids, all or none; image files stay: others may show them."""
        with self._opened() as connection, connection:
            connection.executemany(
                "DELETE FROM example WHERE question_id = ?", [(number,) for number in numbers]
            )

    def _example(self, row: Sequence[object]) -> Example:
        where = f"{self.folder / FILE}, example {row[0]}"
        answers = parse_json(str(row[-1]), where, ADVICE)
        content = dict(zip(COLUMNS.split(", "), (*row[:-1], answers), strict=True))
        stored = checked(_Stored, content, where, ADVICE)
        return Example(**{**dict(stored), "image": str(self.folder / stored.image)})

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=WAIT_S)) as connection:
                yield connection
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"another process has added to {path} since it was opened: open it again."
            ) from error
        except (sqlite3.Error, OSError, OverflowError) as error:
            raise UserError(
                f"{path} can't be used ({error}); what was there before is unchanged. Free some "
                f"space, allow this user to write there, or {ADVICE}."
            ) from error
