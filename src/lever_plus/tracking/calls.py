"""Calls to MLflow with a time limit: each ends with an answer or with an error for people.

MLflow's own client retries an unreachable server for minutes, and waits for a slow one for ever.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

Answer = TypeVar("Answer")
LONGEST: Final = 300
"""How many characters of MLflow's message are shown; some servers answer with whole pages."""
CAUSES: Final = {
    "database is locked": "is locked by another process: try again when that process has ended",
    "readonly database": "can't be written to: let this user write there",
    "disk is full": "has no room left on its disk: free some space",
    "unable to open database": "can't be opened: check that its folder exists and is writable",
    "malformed": "is damaged: restore a backup, or move it away; `lever-plus track sync` creates "
    "the pipeline's runs again",
    "not a database": "is damaged: restore a backup, or move it away; `lever-plus track sync` "
    "creates the pipeline's runs again",
    "password authentication failed": "refuses this user and password: correct the address",
    "error code 401": "refuses this user: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "Max retries exceeded": "can't be reached: check that the server runs",
    "Connection refused": "can't be reached: check that the server runs",
}
"""{part of a message of MLflow or its database: how we say it}."""
CLASHES: Final = ("IntegrityError", "UniqueViolation", "Duplicate entry")
"""What databases say if two processes add the same row at once; the failed call changes nothing."""
TRIES: Final = 3


def ask(
    place: str, seconds: float, call: Callable[..., Answer], *args: Any, **named: Any
) -> Answer:
    """Return the result of a call, or raise UserError when its time is over.

    The call runs in a thread of its own, which is abandoned if it takes too long. A call that
    clashes with another process's is repeated, and then finds what that process added.

    Args:
        place: The store's address, as it may be printed.
        seconds: How long to wait.
        call: A method of MLflow's client, or a function that connects to its store.
        args: Positional arguments of the call.
        named: Keyword arguments of the call.

    Raises:
        UserError: The call failed, or did not end in time.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        for left in reversed(range(TRIES)):
            try:
                answers.append(call(*args, **named))
                return
            except BaseException as error:
                if not left or not any(clash in str(error) for clash in CLASHES):
                    errors.append(error)
                    return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    if errors:
        if isinstance(errors[0], UserError):
            raise errors[0]
        raise UserError(said(place, errors[0])) from errors[0]
    raise UserError(
        f"The MLflow store {place} did not answer within {seconds:.0f} s: check whether it is "
        "busy or down, and try again."
    )


def said(place: str, error: BaseException) -> str:
    """Return one sentence, without secrets, for an error of MLflow or of its database."""
    text = " ".join(str(error).split("[SQL:")[0].split("(Background on")[0].split())
    for part, meaning in CAUSES.items():
        if part in text:
            return f"The MLflow store {place} {meaning}."
    text = without_secrets(text or type(error).__name__)
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return (
        f"The MLflow store {place} can't be used ({short}): correct that, or set "
        "MLFLOW_TRACKING_URI to another store."
    )


def be_quiet() -> None:
    """Make MLflow print errors only, each once, and give up soon if a server does not answer."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # This logger prints every database error with its traceback, although it is raised as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL + 1)
    for name in ("alembic", "urllib3.connectionpool", "mlflow.models.signature"):
        logging.getLogger(name).setLevel(logging.ERROR)
