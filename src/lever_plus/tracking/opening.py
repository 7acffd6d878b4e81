"""Opening the MLflow store, with an error for people if it is missing, damaged or not MLflow's.

MLflow itself would create its tables in any database, and upgrade old tables without asking. A
database of another program or of another version is refused before MLflow opens it.
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
"""How long a server or a file may take to answer at all, in seconds."""
MAKING_S: Final = 120.0
"""How long it may take to create a store's tables, in seconds."""
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
    """What a database holds: its tables, the version of MLflow's tables, and the number of runs."""

    tables: Sequence[str]
    version: str | None
    runs: int


def open_client(uri: str) -> Any:
    """Return MLflow's client for a store; a SQLite file that is missing is created.

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
            # The first call creates the tables.
            ask(place, MAKING_S, MlflowClient(uri).search_experiments, max_results=1)
    return ask(place, MAKING_S, MlflowClient, uri)


def _greet(uri: str) -> None:
    """Check that a server answers, through the proxies and certificates that MLflow would use."""
    with needs("tracking", "MLflow tracking"):
        import requests

    try:
        # The body of the answer is not read: it may have any size.
        with requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_S, stream=True) as answer:
            status = answer.status_code
    except (requests.RequestException, ValueError) as error:
        raise UserError(
            f"The MLflow server {shown(uri)} can't be reached: start it, or correct "
            "MLFLOW_TRACKING_URI."
        ) from error
    if status >= 500:
        raise UserError(
            f"The MLflow server {shown(uri)} answers with status {status}: repair it, and try "
            "again."
        )


def _check_file(path: Path) -> None:
    """Refuse a file that is not a SQLite database; a missing or empty one will be created."""
    try:
        if not path.exists():
            return
        if not path.is_file():
            raise UserError(f"{path} is not a file: name a SQLite file in MLFLOW_TRACKING_URI.")
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(
            f"{path} can't be read ({error.strerror}): let this user read it, or set "
            "MLFLOW_TRACKING_URI to another store."
        ) from error
    if start and start != b"SQLite format 3\0":
        raise UserError(
            f"{path} is not a SQLite database: move it away, or set MLFLOW_TRACKING_URI to "
            "another file."
        )


def _sqlite_schema(path: Path) -> Schema:
    """Read a file's schema, and check that this process can write to it now."""
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
        UserError: It belongs to another program or another version of MLflow, or is incomplete.
    """
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.db.base_sql_model import Base

    tables, version, runs = schema
    if not tables:
        return False
    if "experiments" not in tables or not {"runs", "metrics", "tags"} & set(tables):
        # A server's database may hold other tables beside MLflow's, if they have no version table.
        if kind != "sqlite" and "alembic_version" not in tables:
            return False
        some = ", ".join(sorted(tables)[:3])
        raise UserError(
            f"The MLflow store {place} is another program's database (it holds {some}): set "
            "MLFLOW_TRACKING_URI to a database for MLflow alone."
        )
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    scripts = ScriptDirectory(str(folder))
    missing = sorted(set(Base.metadata.tables) - set(tables))
    if version == scripts.get_current_head() and not missing:
        return True
    if version is None and not runs and kind != "sqlite":
        return False  # incomplete: being created, or its creator was killed; MLflow completes it
    known = [script.revision for script in scripts.walk_revisions()]
    if version is not None and version not in known:
        raise UserError(
            f"The MLflow store {place} was made by a newer MLflow than {mlflow.__version__} "
            f"(its tables have version {version}): install a newer MLflow, or set "
            "MLFLOW_TRACKING_URI to another store."
        )
    if runs:
        raise UserError(
            f"The MLflow store {place} was made by an older MLflow than {mlflow.__version__}, or "
            "lacks tables: make a copy of it, and run `mlflow db upgrade` with its address."
        )
    raise UserError(
        f"The MLflow store {place} is only half made (it has no runs and "
        f"lacks {', '.join(missing[:3]) or 'versions'}): unless another MLflow is creating it now, "
        "delete it and try again."
    )


def _make(path: Path) -> None:
    """Create a SQLite store under another name, then rename it, so that it is never incomplete."""
    fresh = path.with_name(f".{path.name}.making")
    try:
        fresh.unlink(missing_ok=True)  # left by a killed process; the lock keeps out others
        ask(shown(f"{SQLITE}{path}"), MAKING_S, _make_tables, fresh)
        # SQLite would apply the journal of a deleted file to the new one.
        for ending in ("-journal", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        fresh.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} can't be created ({error.strerror}): let this user write there, or set "
            "MLFLOW_TRACKING_URI to another store."
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _make_tables(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    make: Any = SqlAlchemyStore
    store = make(f"{SQLITE}{path}", str(path.parent / ARTIFACTS))
    store.engine.dispose()  # else it keeps the file open under its first name


def own_artifacts(uri: str) -> Path | None:
    """Return the folder for the runs' files, beside a SQLite store; None if a server decides."""
    return sqlite_file(uri).parent / ARTIFACTS if scheme(uri) == "sqlite" else None


def _move_artifacts(path: Path) -> None:
    """Point a copied or moved store to the folder for runs' files beside it, not the old one."""
    here = str(path.parent / ARTIFACTS)
    with closing(sqlite3.connect(path, timeout=PROBE_S)) as opened, opened:
        found = opened.execute("SELECT artifact_location FROM experiments").fetchall()
        for (location,) in found:
            root = str(location or "").rpartition("/")[0]
            if not root.startswith("/") or Path(root).name != ARTIFACTS:
                continue  # somebody chose this place
            if Path(root).resolve() != Path(here):
                for table, column in PLACES:
                    opened.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE substr({column}, 1, ?) = ?",
                        (here, len(root) + 1, len(root) + 1, f"{root}/"),
                    )
