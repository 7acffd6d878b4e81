"""Which trials are lost: their worker is gone, or has been silent for too long.

On this machine that is known from the worker's process, on others from the time of its last sign of
life. A trial that is taken for lost is failed, and its values are queued again.
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
"""Of a trial: the number of the lost one that it repeats; why it failed."""
SIGNS = 4
"""Signs of life in the time after which a trial counts as lost."""
NAMELESS_S = 10.0
"""A worker puts its name to a trial at once: without one it is lost after this."""


@contextmanager
def signs_of_life(trial: Trial, stale_seconds: float) -> Iterator[None]:
    """Name this process as the trial's worker; give signs of life until the block ends."""
    # The time first: a trial with a name but no time would count as silent.
    trial.set_user_attr(ALIVE, time.time())
    trial.set_user_attr(WORKER, name_process())
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
    """Mark trials whose worker is gone as failed and queue their values again.

    Whoever does this may be killed in the middle of it: what failed without a word about why is
    looked for every time. Two at once may queue values twice; `repeats` tells the second.

    Returns:
        Numbers of the trials that were marked.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    lost = [trial.number for trial in running if is_lost(trial, stale_seconds)]
    # Several workers may see the same lost trial; one of them marks it.
    marked = [number for number in lost if tell(study, number, state=TrialState.FAIL)]
    trials = study.get_trials(deepcopy=False)
    queued = {trial.user_attrs.get(AGAIN) for trial in trials}
    for trial in trials:
        forgotten = trial.state == TrialState.FAIL and FAILED not in trial.user_attrs
        if forgotten and trial.number not in queued and not repeats(trial, trials):
            role = {ROLE: trial.user_attrs[ROLE]} if ROLE in trial.user_attrs else {}
            # A trial may be lost before all of its queued values were asked for.
            values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            study.enqueue_trial(values, user_attrs={**role, AGAIN: trial.number})
    return marked


def repeats(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether an earlier trial is the same one: several workers may have queued it at once."""
    key = _key(trial)
    return key is not None and any(_key(other) == key for other in trials[: trial.number])


def _key(trial: FrozenTrial) -> object:
    return trial.user_attrs.get(AGAIN, trial.user_attrs.get(ROLE))


def place_of(number: int, trials: Sequence[FrozenTrial]) -> int:
    """Return a trial's place in the study: that of the lost one, if it repeats one.

    Places are counted without repeated trials, so that a killed worker changes no proposal.
    """
    trial = trials[number]
    while AGAIN in trial.user_attrs:
        trial = trials[trial.user_attrs[AGAIN]]
    return sum(AGAIN not in other.user_attrs for other in trials[: trial.number])


def is_lost(trial: FrozenTrial, stale_seconds: float) -> bool:
    """Whether nobody runs a running trial any more."""
    worker = trial.user_attrs.get(WORKER)
    gone = is_gone(worker)
    if gone is not None:
        return gone
    return silent_for(trial) > (stale_seconds if worker else min(NAMELESS_S, stale_seconds))


def is_nameless(trial: FrozenTrial) -> bool:
    """Whether a running trial has only just begun, or its worker was killed in that moment."""
    return trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs


def silent_for(trial: FrozenTrial) -> float:
    """Return the seconds since the last sign of life of a running trial."""
    # In the moment after its start a trial has neither name nor sign of life.
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - float(trial.user_attrs.get(ALIVE, started))


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
