"""Lost trials: their worker is gone, or has been silent for too long.

For a worker on this machine this is known from its process, for others from the time of its last
sign of life. A lost trial is marked as failed, and its values are queued again.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from lever_plus.tracking.makers import is_gone, name_process

LOG = logging.getLogger("lever_plus")
WORKER, ALIVE, ROLE = "worker", "alive", "role"
AGAIN, FAILED = "again", "failed"
"""Attributes of a trial: the number of the lost trial that it repeats; why it failed."""
SIGNS = 4
"""How many signs of life a worker gives in the time after which its trial would count as lost."""
NAMELESS_S = 10.0
"""Seconds after which a trial without a worker's name is lost: a worker names itself at once."""


@contextmanager
def signs_of_life(trial: Trial, stale_seconds: float) -> Iterator[None]:
    """Name this process as the trial's worker, and give signs of life until the block ends."""
    # The time is set first: a trial with a worker's name but no time would count as silent.
    trial.set_user_attr(ALIVE, time.time())
    trial.set_user_attr(WORKER, name_process())
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(stale_seconds / SIGNS):
            try:
                trial.set_user_attr(ALIVE, time.time())
            except UpdateFinishedTrialError:
                return  # the trial notices this at its next report
            except Exception as error:
                LOG.warning("trial %d could not give a sign of life: %s", trial.number, error)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()


def requeue_lost(study: optuna.Study, stale_seconds: float) -> list[int]:
    """Mark trials whose worker is gone as failed, and queue their values again.

    A process may be killed while it does this, so every call also looks for trials that failed
    without a reason and were not queued again. Two processes at once may queue the same values
    twice; `repeats` recognises the second.

    Returns:
        Numbers of the trials that this call marked.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    lost = [trial.number for trial in running if is_lost(trial, stale_seconds)]
    # Several workers may see the same lost trial; only one of them marks it.
    marked = [number for number in lost if tell(study, number, state=TrialState.FAIL)]
    trials = study.get_trials(deepcopy=False)
    queued = {trial.user_attrs.get(AGAIN) for trial in trials}
    for trial in trials:
        forgotten = trial.state == TrialState.FAIL and FAILED not in trial.user_attrs
        if forgotten and trial.number not in queued and not repeats(trial, trials):
            role = {ROLE: trial.user_attrs[ROLE]} if ROLE in trial.user_attrs else {}
            # A trial may be lost before it has asked for all of its queued values.
            values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(values, user_attrs={**role, AGAIN: trial.number})
    return marked


def repeats(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether an earlier trial is the same, because several workers queued it at once."""
    key = _key(trial)
    return key is not None and any(_key(other) == key for other in trials[: trial.number])


def _key(trial: FrozenTrial) -> object:
    return trial.user_attrs.get(AGAIN, trial.user_attrs.get(ROLE))


def place_of(number: int, trials: Sequence[FrozenTrial]) -> int:
    """Return a trial's place in the study; a trial that repeats a lost one has its place.

    Places are counted without repeats, so that a killed worker does not change any proposal.
    """
    trial = trials[number]
    while AGAIN in trial.user_attrs:
        trial = trials[trial.user_attrs[AGAIN]]
    return sum(AGAIN not in other.user_attrs for other in trials[: trial.number])


def is_lost(trial: FrozenTrial, stale_seconds: float) -> bool:
    """Whether a trial that is marked as running has no worker any more."""
    worker = trial.user_attrs.get(WORKER)
    gone = is_gone(worker)
    if gone is not None:
        return gone
    return silent_for(trial) > (stale_seconds if worker else min(NAMELESS_S, stale_seconds))


def is_nameless(trial: FrozenTrial) -> bool:
    """Whether a running trial has no worker's name yet.

    Either it has just begun, or its worker was killed in that moment.
    """
    return trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs


def silent_for(trial: FrozenTrial) -> float:
    """Return the seconds since the last sign of life of a running trial."""
    # Right after its start a trial has neither a worker's name nor a sign of life.
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - float(trial.user_attrs.get(ALIVE, started))


def tell(
    study: optuna.Study,
    number: int,
    value: float | None = None,
    state: TrialState | None = None,
) -> bool:
    """Record the end of a trial; return False if another process did so first."""
    try:
        study.tell(number, value, state)
    except UpdateFinishedTrialError:
        return False
    except ValueError:
        # Optuna raises this if the trial had already ended.
        if study.get_trials(deepcopy=False)[number].state.is_finished():
            return False
        raise
    return True
