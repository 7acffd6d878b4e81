"""Logging to MLflow while a training runs, which neither ends nor waits because of it.

A thread beside the training does all that has to do with MLflow, from the import on. Where it fails
or falls behind, it stops with one warning: the history file has everything, and `lever-plus track
sync` makes the run good.
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
"""How long one call to MLflow may take before live logging stops."""
OPENING_S: Final = 30.0
"""From its start, a run in a file of this machine has so long to open at least: nobody else is to
be waited for, but a new store takes seconds to make."""
CLOSING_S: Final = 5.0
"""From the end of the training, all else must be done in so long."""
LONGEST: Final = 10_000
"""Rows that wait to be sent."""
_GIVEN_UP: set[str] = set()
"""Stores that did not answer in time: this process asks each of them once."""

Step = Callable[[Run], None]


class LiveLog:
    """The live side of one training run; no method raises because of MLflow."""

    def __init__(self, uri: str, open_run: Callable[[], Run]) -> None:
        """Start the thread.

        Args:
            uri: Of the store.
            open_run: Makes the run; it is called in the thread.
        """
        self._uri, self._open_run = uri, open_run
        self._steps: queue.Queue[Step | None] = queue.Queue(LONGEST)
        self._why, self._warned = "", uri in _GIVEN_UP
        self._started, self._opened = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mlflow")
        if not self._warned:
            self._thread.start()

    def row(self, row: Row) -> None:
        """Hand on a history row."""
        self._put(lambda run: run.log_row(row))

    def end(self, last: Step) -> None:
        """Hand on what ends the run, and wait a few seconds until all is sent."""
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
        """Say once why the run is not live any more."""
        if not self._why or self._warned:
            return
        self._warned = True
        message = (
            f"{self._why} The training goes on without it: run `lever-plus track sync` later, "
            "which makes the run from its history."
        )
        try:
            warnings.warn(message, stacklevel=4)
        except Warning:  # warnings are errors here; a training is worth more
            sys.stderr.write(f"{message}\n")
