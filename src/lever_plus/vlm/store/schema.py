"""What makes a SQLite file an answer store, and how to check that without changing the file.

A file may be another program's database or another user's store. Before anything is written, and
whenever a store is only read, it is opened so that neither it nor the files beside it change.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lever_plus.errors import UserError
from lever_plus.files.checking import checked
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import check_file
from lever_plus.vlm.request import VlmIdentity

SCHEMA: Final = 1
APPLICATION: Final = int.from_bytes(b"LvP+", "big")
"""`PRAGMA application_id` of an answer store; stores of older versions have 0."""
KEY_BYTES: Final = 16
LONGEST: Final = 2**20
"""Largest number of characters in an answer; no VLM generates a longer one here."""
WAIT_S: Final = 60.0
"""How long a writer waits for other writers, in seconds."""
LOOK_S: Final = 10.0
"""How long a reader waits for a lock, in seconds."""
SETTLED_S: Final = 0.05
"""How long a file may look damaged because another process is creating it, in seconds."""
TABLES: Final = {
    "vlm": "CREATE TABLE vlm (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE)",
    "answer": """CREATE TABLE answer (
    key BLOB PRIMARY KEY, vlm INTEGER NOT NULL REFERENCES vlm (id), text TEXT, log_likelihood REAL
) WITHOUT ROWID""",
    "segment": """CREATE TABLE segment (
    key BLOB PRIMARY KEY, vlm INTEGER NOT NULL REFERENCES vlm (id), data BLOB NOT NULL
) WITHOUT ROWID""",
}
SQLITES_OWN: Final = frozenset({"sqlite_stat1", "sqlite_stat4"})
"""Tables that SQLite itself adds when somebody runs ANALYZE."""
ADVICE: Final = "name another file, or move this one away (answers are then computed again)"


def check_schema(connection: sqlite3.Connection, path: Path, *, may_be_empty: bool) -> None:
    """Refuse a database that is not an answer store, or is one of another version.

    Args:
        connection: The open database.
        path: Its file, for the error.
        may_be_empty: Whether a database without tables may become a store.

    Raises:
        UserError: Its tables, columns, triggers or views are not those of a store.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    rows = connection.execute(query).fetchall()
    found = {(kind, name): sql for kind, name, sql in rows if name not in SQLITES_OWN}
    ours = {("table", name) for name in TABLES}
    if application not in (0, APPLICATION) or (not ours & found.keys() and found):
        names = ", ".join(sorted(str(name) for _, name in found)[:3]) or "no tables"
        raise UserError(f"{path} is another program's database ({names}): {ADVICE}.")
    if version not in (0, SCHEMA):
        raise UserError(
            f"{path} was written by schema version {version} of the answer store, and this "
            f"program uses version {SCHEMA}: set scoring.store to another file, or move this one "
            "away (answers are then computed again)."
        )
    if not found and may_be_empty:
        return
    if {name: _plain(sql) for name, sql in found.items()} != {
        ("table", name): _plain(sql) for name, sql in TABLES.items()
    }:
        names = ", ".join(sorted(str(name) for _, name in found.keys() ^ ours)) or "its columns"
        raise UserError(f"{path} is not an answer store: its tables differ ({names}): {ADVICE}.")


def _plain(sql: object) -> str:
    return " ".join(str(sql).replace("IF NOT EXISTS ", "").split())


@contextmanager
def looked_at(path: Path, *, may_be_empty: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a store only to read it; nothing is written, not even beside it.

    Raises:
        UserError: It is missing, damaged, not an answer store, or one of another version.
    """
    check_file(path, "name a store file; it is created when a stage first asks the VLM")
    with explained(path), closing(_reading(path)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        check_schema(connection, path, may_be_empty=may_be_empty)
        yield connection


def _reading(path: Path) -> sqlite3.Connection:
    """Connect without creating a lock file if nobody writes; else read SQLite's log as well.

    A file that another process is just creating looks damaged for a moment.
    """
    address = f"file:{quote(str(path.absolute()))}?"
    deadline = time.monotonic() + SETTLED_S
    while not any(Path(f"{path}{end}").exists() for end in ("-wal", "-shm", "-journal")):
        connection = sqlite3.connect(f"{address}immutable=1", uri=True, isolation_level=None)
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.DatabaseError as error:
            connection.close()
            if "not a database" in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    return sqlite3.connect(f"{address}mode=ro", uri=True, timeout=LOOK_S, isolation_level=None)


def is_interrupted(path: Path) -> bool:
    """Return whether a write was interrupted; opening the file for writing repairs it."""
    journal = Path(f"{path}-journal")
    return journal.exists() and journal.stat().st_size > 0


def identities(connection: sqlite3.Connection, path: Path) -> dict[int, VlmIdentity]:
    """Return the VLMs of a store by number.

    Raises:
        UserError: An entry is not the identity of a VLM.
    """
    found = {}
    for number, text in connection.execute("SELECT id, identity FROM vlm ORDER BY id"):
        where = f"answer store {path}, VLM {number}"
        identity = checked(VlmIdentity, parse_json(_text(text), where, ADVICE), where, ADVICE)
        if not all(str(value).isprintable() for value in identity.values()):
            raise UserError(f"{where}: its name has characters that cannot be printed: {ADVICE}.")
        found[number] = identity
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def identity_text(identity: VlmIdentity) -> str:
    """Return the text by which a store names a VLM."""
    return json.dumps(identity, sort_keys=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into errors for people; nothing that is stored is changed."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        raise UserError(f"answer store {path}: {_advice(error)}") from error


def _advice(error: BaseException) -> str:
    text = str(error)
    # SQLite says "disk I/O error" for a quota, a limit on file sizes, and a broken disk alike.
    if any(sign in text for sign in ("disk is full", "No space left", "disk I/O error")):
        return (
            f"{text}. Everything stored before is safe: free some space, or set scoring.store to "
            "another disk, and run again; only the missing answers are computed."
        )
    if "readonly" in text or "unable to open" in text or isinstance(error, OSError):
        return f"it cannot be written ({text}): set scoring.store to a file that can be written."
    if "locked" in text:
        return f"another process is using it ({text}): run again later."
    if isinstance(error, sqlite3.DatabaseError | UnicodeError):
        return (
            f"it is damaged ({text}). A store only saves time: move it away, and answers are "
            "computed again, or recover it with `sqlite3 FILE .recover`."
        )
    return f"it holds something that no answer store holds ({text}): {ADVICE}."
