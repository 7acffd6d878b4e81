"""Which trials are lost: their worker is gone, or has been silent for too long.

On this machine that is known from the worker's process, on others from the time of its last sign of
life. A trial that is taken for lost is failed, and its values are queued again.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

LOG = logging.getLogger("lever_plus")
WORKER, ALIVE, ROLE = "worker", "alive", "role"
SIGNS = 4
"""Signs of life in the time after which a trial counts as lost."""
CLOCK_S = 5.0
"""The system's clock may be set by so much while a process runs."""


def name_worker(process: int | None = None) -> dict[str, Any]:
    """Return what tells a process from all others: machine, number, and when it started.

    Containers may share a host's name and not its processes, and numbers are given again.
    """
    found = psutil.Process(process)
    return {"machine": _machine(), "process": found.pid, "started": found.create_time()}


def _machine() -> str:
    processes = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{processes.stat().st_ino if processes.exists() else 0}"


@contextmanager
def signs_of_life(trial: Trial, stale_seconds: float) -> Iterator[None]:
    """Name this process as the trial's worker; give signs of life until the block ends."""
    # The time first: a trial with a name but no time would count as silent.
    trial.set_user_attr(ALIVE, time.time())
    trial.set_user_attr(WORKER, name_worker())
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(stale_seconds / SIGNS):
            try:
                trial.set_user_attr(ALIVE, time.time())
            except UpdateFinishedTrialError:
                return  # the trial learns of it at its next report
            except Exception as error:
                LOG.warning("trial %d gives no sign of life: %s", trial.number, error)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()


def requeue_lost(study: optuna.Study, stale_seconds: float) -> list[int]:
    """Mark trials whose worker is gone as failed and queue their values again."""
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Several workers may see the same lost trial; one of them queues its values.
        if is_lost(trial, stale_seconds) and tell(study, trial.number, state=TrialState.FAIL):
            role = {ROLE: trial.user_attrs[ROLE]} if ROLE in trial.user_attrs else {}
            # A trial may be lost before all of its queued values were asked for.
            values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(values, user_attrs={**role, "again": trial.number})
            lost.append(trial.number)
    return lost


def is_lost(trial: FrozenTrial, stale_seconds: float) -> bool:
    """Whether nobody runs a running trial any more."""
    worker = trial.user_attrs.get(WORKER)
    if isinstance(worker, dict) and worker["machine"] == _machine():
        return not _is_running(int(worker["process"]), float(worker["started"]))
    # In the moment after its start a trial has neither name nor sign of life.
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - float(trial.user_attrs.get(ALIVE, started)) > stale_seconds


def _is_running(process: int, started: float) -> bool:
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(process)
        same: bool = abs(found.create_time() - started) < CLOCK_S
        return same and found.status() != psutil.STATUS_ZOMBIE
    return False


def tell(
    study: optuna.Study,
    number: int,
    value: float | None = None,
    state: TrialState | None = None,
) -> bool:
    """Tell the end of a trial; return False if someone else was faster."""
    try:
        study.tell(number, value, state)
    except UpdateFinishedTrialError:
        return False
    except ValueError:
        # What Optuna raises where the trial had ended before it looked.
        if study.get_trials(deepcopy=False)[number].state.is_finished():
            return False
        raise
    return True
