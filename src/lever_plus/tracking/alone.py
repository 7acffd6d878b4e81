"""Locks on an MLflow store: one process at a time; a lock ends with the process that holds it."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import UserError, needs
from lever_plus.files.locks import locked
from lever_plus.tracking.address import scheme, shown, sqlite_file
from lever_plus.tracking.calls import said

LOOK_S: Final = 0.1
"""Pause between two attempts to get a database's lock, in seconds."""


@contextmanager
def alone(uri: str, purpose: str, seconds: float) -> Iterator[None]:
    """Run the block while no other process holds the lock of the same store and purpose.

    For SQLite the lock is a file beside the database. For PostgreSQL it is one of the server's
    advisory locks, which holds for every machine that uses the database. For any other store it is
    a file in this machine's temporary folder, which holds only for this user on this machine.

    Args:
        uri: Address of the store.
        purpose: A word that names the lock.
        seconds: How long to wait for other processes.

    Raises:
        UserError: Other processes took longer, or the lock can't be created.
    """
    match scheme(uri):
        case "sqlite":
            path = sqlite_file(uri)
            lock = _file_lock(path.with_name(f"{path.name}.{purpose}.lock"), uri, seconds)
        case "postgresql":
            lock = _postgres_lock(uri, purpose, seconds)
        case _:
            name = hashlib.sha256(f"{uri} {purpose}".encode()).hexdigest()[:16]
            user = os.getuid() if hasattr(os, "getuid") else 0
            folder = Path(tempfile.gettempdir())
            lock = _file_lock(folder / f"lever-plus-{user}-{name}.lock", uri, seconds)
    with lock:
        yield


def _file_lock(path: Path, uri: str, seconds: float) -> AbstractContextManager[None]:
    with needs("tracking", "MLflow tracking"):
        import filelock  # noqa: F401

    advice = "let this user write there, or set MLFLOW_TRACKING_URI to another store"
    return locked(path, _busy(uri, seconds), advice, seconds)


@contextmanager
def _postgres_lock(uri: str, purpose: str, seconds: float) -> Iterator[None]:
    """Hold an advisory lock; the server releases it when the connection ends, even by a kill."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    digest = hashlib.sha256(f"lever-plus {purpose}".encode()).digest()
    key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
    with ExitStack() as stack:
        try:
            held = stack.enter_context(connection(uri))
            until = time.monotonic() + seconds
            while not held.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
                # An open transaction would keep the database from cleaning up old rows (vacuum).
                held.commit()
                if time.monotonic() > until:
                    raise UserError(_busy(uri, seconds))
                time.sleep(LOOK_S)
            held.commit()
        except SQLAlchemyError as error:
            raise UserError(said(shown(uri), error)) from error
        yield


@contextmanager
def connection(uri: str) -> Iterator[Any]:
    """Connect to a database; give up on PostgreSQL and MySQL after three seconds."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    limits = {"connect_timeout": 3} if scheme(uri) in ("postgresql", "mysql") else {}
    engine = create_engine(uri, poolclass=NullPool, connect_args=limits)
    with engine.connect() as opened:
        yield opened


def _busy(uri: str, seconds: float) -> str:
    return (
        f"The MLflow store {shown(uri)} has been in use by another `lever-plus` command for "
        f"{seconds:.0f} s: try again when that command has ended."
    )
