"""One at a time: locks on a store, which end with the process that holds them."""

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
"""Between two looks at whether a database's lock is free."""


@contextmanager
def alone(uri: str, purpose: str, seconds: float) -> Iterator[None]:
    """Keep other processes out of the block that come with the same store and purpose.

    A lock file lies beside a SQLite file; PostgreSQL has locks of its own, which reach as far as
    the database; of other stores the users of this machine are kept out.

    Args:
        uri: The store's.
        purpose: A word.
        seconds: How long to wait for the others.

    Raises:
        UserError: The others took longer, or the lock can't be made.
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
    """Hold an advisory lock; the server ends it with the connection, whatever ends the process."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    digest = hashlib.sha256(f"lever-plus {purpose}".encode()).digest()
    key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
    with ExitStack() as stack:
        try:
            held = stack.enter_context(connection(uri))
            until = time.monotonic() + seconds
            while not held.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
                # A transaction that stays open would hold back the database's own cleaning.
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
    """Connect to a database; a server that is not there is waited for three seconds."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    limits = {"connect_timeout": 3} if scheme(uri) in ("postgresql", "mysql") else {}
    engine = create_engine(uri, poolclass=NullPool, connect_args=limits)
    with engine.connect() as opened:
        yield opened


def _busy(uri: str, seconds: float) -> str:
    return (
        f"The MLflow store {shown(uri)} is in use by another `lever-plus` command since "
        f"{seconds:.0f} s: try again when that has ended."
    )
