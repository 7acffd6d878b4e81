"""Calls to MLflow that end: with an answer, or in time with a sentence.

MLflow's client tries an unreachable server again for minutes, and a slow one may take for ever.
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
"""Characters of what MLflow says; servers answer with whole pages."""
CAUSES: Final = {
    "database is locked": "is locked by another process: try again when that has ended",
    "readonly database": "can't be written to: let this user write there",
    "disk is full": "has no room on its disk: make some",
    "unable to open database": "can't be opened: see whether its folder is there and writable",
    "malformed": "is damaged: restore a backup, or move it away; `lever-plus track sync` makes "
    "the pipeline's runs anew",
    "not a database": "is damaged: restore a backup, or move it away; `lever-plus track sync` "
    "makes the pipeline's runs anew",
    "password authentication failed": "refuses this user and password: correct the address",
    "error code 401": "refuses this user: set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "Max retries exceeded": "can't be reached: see whether the server runs",
    "Connection refused": "can't be reached: see whether the server runs",
}
"""Parts of what MLflow and its databases say, and what that means."""
CLASHES: Final = ("IntegrityError", "UniqueViolation", "Duplicate entry")
"""What databases say where two processes add the same row at once; nothing of the call is kept."""
TRIES: Final = 3


def ask(
    place: str, seconds: float, call: Callable[..., Answer], *args: Any, **named: Any
) -> Answer:
    """Return what a call gives.

    It runs in a thread of its own, which is left behind where it takes too long. A call that
    clashes with another process's is made again, and finds what that one added.

    Args:
        place: The store, as it may be shown.
        seconds: How long to wait.
        call: A method of MLflow's client, or what connects to its store.
        args: Its arguments.
        named: Its named arguments.

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
        f"The MLflow store {place} did not answer within {seconds:.0f} s: see whether it is busy "
        "or down, and try again."
    )


def said(place: str, error: BaseException) -> str:
    """Return an error of MLflow or of its database as one sentence, without secrets."""
    text = " ".join(str(error).split("[SQL:")[0].split("(Background on")[0].split())
    for part, meaning in CAUSES.items():
        if part in text:
            return f"The MLflow store {place} {meaning}."
    text = without_secrets(text or type(error).__name__)
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"The MLflow store {place} can't be used ({short}): see what is wrong with it."


def be_quiet() -> None:
    """Let MLflow say nothing but its errors, once, and give up soon where nobody answers."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It logs every error of a database with its traceback before it raises it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL + 1)
    for name in ("alembic", "urllib3.connectionpool", "mlflow.models.signature"):
        logging.getLogger(name).setLevel(logging.ERROR)
