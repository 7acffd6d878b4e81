"""Logging to MLflow while a training runs; the training never stops or waits because of MLflow.

A second thread does all that concerns MLflow, even its import. If it fails or falls behind, it
stops with one warning: the history file has everything, and `lever-plus track sync` completes the
run later.
"""

import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Final

from lever_plus.files.secrets import without_secrets
from lever_plus.tracking.address import SQLITE, shown
from lever_plus.tracking.history import Row
from lever_plus.tracking.makers import ALIVE_S
from lever_plus.tracking.run import FLUSH_SECONDS, Run

CALL_S: Final = 8.0
"""How long one call to MLflow may take before live logging stops, in seconds."""
OPENING_S: Final = 30.0
"""If a training ends while a local SQLite store is still being opened, it waits for that until so
many seconds after its start: a new file takes seconds to create."""
CLOSING_S: Final = 5.0
"""How long the end of a training waits for the rest to be sent, in seconds."""
LONGEST: Final = 10_000
"""How many rows may wait to be sent."""
_GIVEN_UP: set[str] = set()
"""Addresses of stores that failed or were too slow: this process does not try them again."""

Step = Callable[[Run], None]


class LiveLog:
    """The live side of one training run; no method raises because of MLflow."""

    def __init__(self, uri: str, open_run: Callable[[], Run]) -> None:
        """Start the thread.

        Args:
            uri: Address of the store.
            open_run: Creates the run; it is called in the thread.
        """
        self._uri, self._open_run = uri, open_run
        self._steps: queue.Queue[Step | None] = queue.Queue(LONGEST)
        self._why, self._warned = "", uri in _GIVEN_UP
        self._started, self._opened = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")
        if not self._warned:
            self._thread.start()

    def row(self, row: Row) -> None:
        """Queue a history row."""
        self._put(lambda run: run.log_row(row))

    def end(self, last: Step) -> None:
        """Queue the step that ends the run, and wait a few seconds until all is sent."""
        self._put(last)
        self._put(None)
        if self._thread.is_alive():
            if self._uri.startswith(SQLITE):
                self._opened.wait(max(0.0, self._started + OPENING_S - time.monotonic()))
            self._thread.join(CLOSING_S)
            if self._thread.is_alive():
                _GIVEN_UP.add(self._uri)
                self._why = self._why or f"The MLflow store {shown(self._uri)} is too slow."
        self._warn()

    def _put(self, step: Step | None) -> None:
        if self._why:
            self._warn()
            return
        try:
            self._steps.put_nowait(step)
        except queue.Full:
            self._why = f"The MLflow store {shown(self._uri)} is too slow."

    def _work(self) -> None:
        try:
            try:
                run = self._open_run()
            except BaseException:
                _GIVEN_UP.add(self._uri)
                raise
            finally:
                self._opened.set()
            alive = time.monotonic()
            while not self._why:
                try:
                    step = self._steps.get(timeout=FLUSH_SECONDS)
                except queue.Empty:
                    run.flush()
                else:
                    if step is None:
                        return
                    step(run)
                if time.monotonic() - alive > ALIVE_S:
                    run.give_sign_of_life()
                    alive = time.monotonic()
        except BaseException as error:
            self._why = without_secrets(str(error) or type(error).__name__)

    def _warn(self) -> None:
        """Warn once that live logging has stopped, and why."""
        if not self._why or self._warned:
            return
        self._warned = True
        message = (
            f"{self._why} The training continues without it: run `lever-plus track sync` later, "
            "which creates the run from its history."
        )
        try:
            warnings.warn(message, stacklevel=4)
        except Warning:  # warnings are set to be errors; they must not end a training
            sys.stderr.write(f"{message}\n")
