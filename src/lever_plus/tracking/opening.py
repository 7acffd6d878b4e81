"""Opening the MLflow store: it is there, answers, is whole and no other program's, or a sentence.

MLflow itself makes its tables in whatever database it is given, and brings old ones to its own
version unasked; both are refused before it sees the store.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.errors import UserError, needs
from lever_plus.tracking.address import DATABASES, SERVERS, SQLITE, scheme, shown, sqlite_file
from lever_plus.tracking.alone import alone, connection
from lever_plus.tracking.calls import ask, be_quiet

PROBE_S: Final = 3.0
MAKING_S: Final = 120.0
"""How long others may take to make a store's tables."""
ARTIFACTS: Final = "mlruns"
PLACES: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow keeps absolute paths of artifacts."""


class Schema(NamedTuple):
    """What a database holds: its tables, the version of MLflow's tables, and how many runs."""

    tables: Sequence[str]
    version: str | None
    runs: int


def open_client(uri: str) -> Any:
    """Return MLflow's client for a store; a SQLite file that is missing is made.

    Raises:
        UserError: MLflow is not installed, or the store can't be used.
    """
    be_quiet()
    kind, place = scheme(uri), shown(uri)
    if kind == "sqlite":
        path = sqlite_file(uri)
        _check_file(path)
    elif kind in SERVERS:
        ask(place, PROBE_S + 1, _greet, uri)
    with needs("tracking", "MLflow tracking"):
        from mlflow import MlflowClient

    if kind == "sqlite":
        with alone(uri, "opening", MAKING_S):
            if not path.exists() or not path.stat().st_size:
                _make(path)
            schema = ask(place, PROBE_S * 3, _sqlite_schema, path)
            if not _check_schema(place, kind, schema):
                _make(path)
            _move_artifacts(path)
            return ask(place, MAKING_S, MlflowClient, uri)
    if kind in DATABASES and not _check_schema(place, kind, ask(place, 10, _schema, uri)):
        with alone(uri, "opening", MAKING_S):
            # The first call makes the tables.
            ask(place, MAKING_S, MlflowClient(uri).search_experiments, max_results=1)
    return ask(place, MAKING_S, MlflowClient, uri)


def _greet(uri: str) -> None:
    """Ask a server whether it is there, by the ways (proxies, certificates) that MLflow takes."""
    with needs("tracking", "MLflow tracking"):
        import requests

    try:
        # The answer's body is not read: it may be of any size.
        with requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_S, stream=True) as answer:
            status = answer.status_code
    except (requests.RequestException, ValueError) as error:
        raise UserError(
            f"The MLflow server {shown(uri)} can't be reached: start it, or correct "
            "MLFLOW_TRACKING_URI."
        ) from error
    if status >= 500:
        raise UserError(
            f"The MLflow server {shown(uri)} answers with status {status}: see to it, and try "
            "again."
        )


def _check_file(path: Path) -> None:
    """Refuse what is no file of SQLite's; one that is missing or empty is none yet."""
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise UserError(f"{path} is no file: name a SQLite file in MLFLOW_TRACKING_URI.")
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}): let this user read it, or set "
            "MLFLOW_TRACKING_URI to another store."
        ) from error
    if start and start != b"SQLite format 3\0":
        raise UserError(
            f"{path} is no SQLite database: move it away, or set MLFLOW_TRACKING_URI to another "
            "file."
        )


def _sqlite_schema(path: Path) -> Schema:
    """Read a file's schema, and see that this process may write to it now."""
    with closing(sqlite3.connect(path, timeout=PROBE_S)) as opened:
        opened.execute("BEGIN IMMEDIATE")
        tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master")]
        version = runs = None
        if "alembic_version" in tables:
            version = opened.execute("SELECT version_num FROM alembic_version").fetchone()
        if "runs" in tables:
            (runs,) = opened.execute("SELECT COUNT(*) FROM runs").fetchone()
        opened.rollback()
        return Schema(tables, version and version[0], runs or 0)


def _schema(uri: str) -> Schema:
    """Read the schema of a database on a server."""
    from sqlalchemy import inspect, text

    with connection(uri) as opened:
        tables = inspect(opened).get_table_names()
        version = runs = None
        if "alembic_version" in tables:
            version = opened.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if "runs" in tables:
            runs = opened.execute(text("SELECT COUNT(*) FROM runs")).scalar()
        return Schema(tables, version, runs or 0)


def _check_schema(place: str, kind: str, schema: Schema) -> bool:
    """Return whether a database has MLflow's tables; False if it has none at all.

    Raises:
        UserError: It is another program's, of another version of MLflow, or half made.
    """
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.db.base_sql_model import Base

    tables, version, runs = schema
    if not tables:
        return False
    if "experiments" not in tables or not {"runs", "metrics", "tags"} & set(tables):
        # Tables without a version of their own may lie beside MLflow's on a server.
        if kind != "sqlite" and "alembic_version" not in tables:
            return False
        some = ", ".join(sorted(tables)[:3])
        raise UserError(
            f"The MLflow store {place} is another program's database (it holds {some}): set "
            "MLFLOW_TRACKING_URI to a database of its own."
        )
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    scripts = ScriptDirectory(str(folder))
    missing = sorted(set(Base.metadata.tables) - set(tables))
    if version == scripts.get_current_head() and not missing:
        return True
    if version is None and not runs and kind != "sqlite":
        return False  # somebody makes it just now, or was killed: a server's database takes it up
    known = [script.revision for script in scripts.walk_revisions()]
    if version is not None and version not in known:
        raise UserError(
            f"The MLflow store {place} was made by a newer MLflow than {mlflow.__version__} "
            f"(version {version} of its tables): install that one."
        )
    if runs:
        raise UserError(
            f"The MLflow store {place} was made by an older MLflow than {mlflow.__version__}, or "
            "lacks tables: keep a copy of it, and run `mlflow db upgrade` with its address."
        )
    raise UserError(
        f"The MLflow store {place} is half made (it lacks {', '.join(missing[:3]) or 'versions'}) "
        "and has no runs: unless another MLflow makes it just now, delete it and try again."
    )


def _make(path: Path) -> None:
    """Make a SQLite store beside its place, then put it there: it is whole or not there."""
    fresh = path.with_name(f".{path.name}.making")
    try:
        fresh.unlink(missing_ok=True)  # what a killed process has left; it held the same lock
        ask(shown(f"{SQLITE}{path}"), MAKING_S, _make_tables, fresh)
        # SQLite would take the journal of a file that is gone for the new one's.
        for ending in ("-journal", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        fresh.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be made ({error.strerror}): let this user write there, or set "
            "MLFLOW_TRACKING_URI to another store."
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _make_tables(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    make: Any = SqlAlchemyStore
    store = make(f"{SQLITE}{path}", str(path.parent / ARTIFACTS))
    store.engine.dispose()  # else it would keep the file open under a name that ends


def own_artifacts(uri: str) -> Path | None:
    """Return the folder for files of a local store's runs; None where a server decides."""
    return sqlite_file(uri).parent / ARTIFACTS if scheme(uri) == "sqlite" else None


def _move_artifacts(path: Path) -> None:
    """Let a store that was copied or moved keep files beside itself, not where it was made."""
    here = str(path.parent / ARTIFACTS)
    with closing(sqlite3.connect(path, timeout=PROBE_S)) as opened, opened:
        found = opened.execute("SELECT artifact_location FROM experiments").fetchall()
        for (location,) in found:
            root = str(location or "").rpartition("/")[0]
            if not root.startswith("/") or Path(root).name != ARTIFACTS:
                continue  # in a place that somebody chose
            if Path(root).resolve() != Path(here):
                for table, column in PLACES:
                    opened.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column}, 1, ?) = ?",
                        (here, len(root) + 1, len(root) + 1, f"{root}/"),
                    )
