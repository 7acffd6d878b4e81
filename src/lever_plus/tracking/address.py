"""Where the MLflow store is: its address, and what may be shown of it."""

import os
from pathlib import Path
from typing import Final

from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

SQLITE: Final = "sqlite:///"
SERVERS: Final = ("http", "https")
DATABASES: Final = ("postgresql", "mysql", "mssql")
MANAGED: Final = ("databricks",)
HINT: Final = "set MLFLOW_TRACKING_URI to sqlite:///FILE, postgresql+psycopg://... or http(s)://..."


def project_root() -> Path:
    """Return the project's root: DVC runs experiments in temporary folders and exports DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    A relative path of a SQLite file starts at the project's root, wherever a stage runs.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{SQLITE}mlflow.db"
    path = uri.removeprefix(SQLITE)
    if path == uri or not path or path.startswith((":", "file:")):
        return uri
    return f"{SQLITE}{project_root() / path}"


def scheme(uri: str) -> str:
    """Return what an address starts with, without its driver: `postgresql` of postgresql+psycopg.

    Raises:
        UserError: It is no address of a store that runs can be kept in.
    """
    found = "databricks" if uri == "databricks" else uri.rpartition("://")[0]
    found = found.partition("://")[0].partition("+")[0].lower()
    if found in ("", "file"):
        raise UserError(
            f"The MLflow store {shown(uri)} is a folder of files, in which runs can't be kept "
            f"safely: {HINT} (`mlflow migrate-filestore` takes old runs along)."
        )
    if found not in ("sqlite", *SERVERS, *DATABASES, *MANAGED):
        raise UserError(f"The MLflow store {shown(uri)} is of no kind that is known: {HINT}.")
    return found


def sqlite_file(uri: str) -> Path:
    """Return the file of a SQLite address; UserError if it names none, or one that MLflow misreads.

    MLflow decodes % and ? in one place and takes them as they are in another.
    """
    path = uri.partition("///")[2]
    if not uri.startswith(SQLITE) or not path or path.startswith((":", "file:")):
        raise UserError(f"The MLflow store {shown(uri)} names no file: {HINT}.")
    if any(sign in path for sign in "%?\0"):
        raise UserError(
            f"The MLflow store {shown(uri)}: its path has a sign (% or ?) that MLflow can't read "
            f"in a path: move it, or {HINT}."
        )
    try:
        # Its locks lie beside the file itself, whatever links lead to it.
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"The MLflow store {shown(uri)}: {error}: {HINT}.") from error


def shown(uri: str) -> str:
    """Return an address as it may be printed: without user and password."""
    return without_secrets(uri)
