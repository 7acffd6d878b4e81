"""The address of the MLflow store, and how to print it without secrets."""

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
    """Return the project's root: $DVC_ROOT, else the current folder.

    DVC runs experiments in temporary folders and sets DVC_ROOT to the real one.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    The relative path of a SQLite file is taken from the project's root, wherever a stage runs.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"{SQLITE}mlflow.db"
    path = uri.removeprefix(SQLITE)
    if path == uri or not path or path.startswith((":", "file:")):
        return uri
    return f"{SQLITE}{project_root() / path}"


def scheme(uri: str) -> str:
    """Return an address's scheme without its driver: `postgresql` for postgresql+psycopg://....

    Raises:
        UserError: The address is not that of a store in which runs can be kept.
    """
    found = "databricks" if uri == "databricks" else uri.rpartition("://")[0]
    found = found.partition("://")[0].partition("+")[0].lower()
    if found in ("", "file"):
        raise UserError(
            f"The MLflow store {shown(uri)} is a folder of files, in which runs can't be kept "
            f"safely: {HINT} (`mlflow migrate-filestore` copies old runs into it)."
        )
    if found not in ("sqlite", *SERVERS, *DATABASES, *MANAGED):
        raise UserError(f"The MLflow store {shown(uri)} is of an unknown kind: {HINT}.")
    return found


def sqlite_file(uri: str) -> Path:
    """Return the file of a SQLite address.

    Raises:
        UserError: The address names no file, or its path has % or ? in it: MLflow decodes these in
            some places and not in others, so it would use two different files.
    """
    path = uri.partition("///")[2]
    if not uri.startswith(SQLITE) or not path or path.startswith((":", "file:")):
        raise UserError(f"The MLflow store {shown(uri)} names no file: {HINT}.")
    if any(sign in path for sign in "%?\0"):
        raise UserError(
            f"The MLflow store {shown(uri)}: its path has a character (% or ?) that MLflow "
            f"can't read in a path: move the file, or {HINT}."
        )
    try:
        # Its lock files are beside the file itself, whatever links lead to it.
        return Path(path).resolve()
    except (OSError, RuntimeError) as error:
        raise UserError(f"The MLflow store {shown(uri)}: {error}: {HINT}.") from error


def shown(uri: str) -> str:
    """Return an address that may be printed: without user and password."""
    return without_secrets(uri)
