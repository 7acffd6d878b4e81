"""Workers of a study: any number of processes, on any number of machines, can join.

A study is kept in a journal file (the default; safe for several processes on one machine or on a
shared folder) or in a database. A worker that is killed loses its running trial at most: another
worker marks that trial as failed, and queues its values again. If a worker's own trial was counted
as lost, because the worker was stopped or cut off for too long, it drops the trial and continues
with the next.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from lever_plus.config.file import changed_params
from lever_plus.config.params import Params
from lever_plus.experiments.study.fingerprint import check_made_with, made_with
from lever_plus.experiments.study.liveness import (
    FAILED,
    NAMELESS_S,
    ROLE,
    is_nameless,
    repeats,
    requeue_lost,
    signs_of_life,
    silent_for,
    tell,
)
from lever_plus.experiments.study.objective import Accuracies, DivergedError, Measured, Trials
from lever_plus.experiments.study.proposals import Proposals
from lever_plus.experiments.study.settings import MOST_EPOCHS, Space, StudySettings
from lever_plus.experiments.study.space import SPANS, baseline, changes, check_space
from lever_plus.experiments.study.storage import explained, open_study
from lever_plus.experiments.study.trials import KL, check_trials
from lever_plus.pipeline.paths import Paths
from lever_plus.training.trainer import Row

LOG = logging.getLogger("lever_plus")
UID = "uid"
BASELINE = "baseline"
POLL_S = 1.0
SHORT_S = 0.02
SAY_EVERY_S = 10.0


def run_worker(params: Params, settings: StudySettings, trials: Trials | None = None) -> int:
    """Run trials until the study has as many as it should; return how many this worker ran.

    Args:
        params: Content of params.yaml.
        settings: Settings of the study.
        trials: Data and policies; None uses those of the pipeline.

    Raises:
        UserError: The space has values that params.yaml can't have, the study was made with other
            settings or data, or its storage is damaged or can't be reached.
    """
    check_space(params, settings.space)
    study, stale = open_study(settings), settings.stale_seconds
    study.sampler = Proposals(settings)
    found = trials or Trials(params, Paths())
    now = made_with(params, settings, found.sources(settings.seeds))
    run = objective(found, params, settings)
    finished, said = 0, time.monotonic() - SAY_EVERY_S + POLL_S
    with explained(settings):
        _begin(study, params, settings.space, now)
        while True:
            check_made_with(study, now)
            requeue_lost(study, stale)
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if any(map(is_nameless, running)):
                # Wait until it has a worker or is lost: its place counts for the next proposal.
                said = _say_waiting(running, min(stale, NAMELESS_S), said)
                time.sleep(SHORT_S)
            elif _wants_trials(study, settings.trials):
                _run_trial(study, run, settings)
                finished += 1
            elif running:
                # This worker stays, to take over if the others are killed.
                said = _say_waiting(running, stale, said)
                time.sleep(POLL_S)
            else:
                return finished


def _begin(study: optuna.Study, params: Params, space: Space, now: dict[str, Any]) -> None:
    """Check the study's trials, and prepare a new study."""
    check_trials(study, space)
    check_made_with(study, now)
    if UID not in study.user_attrs:
        study.set_user_attr(UID, uuid.uuid4().hex)
    queue_baseline(study, params, space)


def _say_waiting(running: Sequence[FrozenTrial], stale_seconds: float, said: float) -> float:
    """Log from time to time what this worker waits for; return when it was last logged."""
    if time.monotonic() - said < SAY_EVERY_S:
        return said
    for trial in running:
        LOG.warning(
            "waiting for trial %d, which another worker runs; it will be taken over if that worker "
            "is gone, or silent for %.0f seconds (so far %.0f)",
            trial.number,
            stale_seconds,
            silent_for(trial),
        )
    return time.monotonic()


def _run_trial(study: optuna.Study, run: Callable[[Trial], float], settings: StudySettings) -> None:
    """Run one trial, and record how it ended.

    `Study.optimize` is not used, because it ends the process if another worker has marked the trial
    as failed in the meantime.
    """
    trial = study.ask()
    value: float | None = None
    state: TrialState | None = TrialState.FAIL
    try:
        with signs_of_life(trial, settings.stale_seconds):
            try:
                value, state = run(trial), None
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except (DivergedError, FloatingPointError) as error:
                LOG.warning("trial %d failed: %s; values: %s", trial.number, error, trial.params)
                # With a reason: trials that failed without one were cut off, and are tried again.
                trial.set_user_attr(FAILED, str(error))
    except UpdateFinishedTrialError:
        LOG.warning("trial %d was counted as lost, and is left to another worker", trial.number)
    finally:
        tell(study, trial.number, value, state)


def _wants_trials(study: optuna.Study, trials: int) -> bool:
    """Whether the study has queued trials, or too few (failed ones do not count)."""
    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return TrialState.WAITING in states or sum(state in counted for state in states) < trials


def queue_baseline(study: optuna.Study, params: Params, space: Space) -> None:
    """Queue the RCE-only baseline as the first trial, if the study has none."""
    if all(t.user_attrs.get(ROLE) != BASELINE for t in study.get_trials(deepcopy=False)):
        study.enqueue_trial(baseline(params, space), user_attrs={ROLE: BASELINE})


def objective(trials: Trials, params: Params, settings: StudySettings) -> Callable[[Trial], float]:
    """Return the function that runs a trial and returns its objective."""

    def run(trial: Trial) -> float:
        before = trial.study.get_trials(deepcopy=False)
        if repeats(before[trial.number], before):
            raise DivergedError("it repeats another trial, because two workers queued it at once")
        values = suggest(trial, settings.space)
        # The baseline is params.yaml as it is, even if the space lacks some of its values.
        own = {} if _is_baseline(trial) else changes(values, params, settings.space)
        changed = changed_params(params, own)
        measured: list[Measured] = []
        for index, seed in enumerate(settings.seeds):
            steps = changed.rce.epochs + MOST_EPOCHS
            reporter = _reporter(trial, index * steps, measured, trials.baseline(seed))
            measured.append(_finite(trials.measure(changed, values["epochs"], seed, reporter)))
            trial.report(_mean(measured), (index + 1) * steps - 1)
            if trial.should_prune():
                raise optuna.TrialPruned
        _remember(trial, measured, settings)
        return _mean(measured)

    return run


def _is_baseline(trial: Trial) -> bool:
    return bool(trial.user_attrs.get(ROLE) == BASELINE)


def _finite(measured: Measured) -> Measured:
    """Refuse results that are not finite: comparisons with them mean nothing."""
    if not np.isfinite([*measured.difference, *measured.accuracies, measured.kl]).all():
        raise DivergedError(f"KL {measured.kl}, dev accuracy {measured.accuracies}")
    return measured


def _mean(measured: list[Measured]) -> float:
    """Return the mean difference, rounded so that rounding errors around 0 become exactly 0."""
    return round(float(np.mean([m.difference.mean() for m in measured])), 9) + 0.0


def _reporter(
    trial: Trial, first_step: int, measured: list[Measured], baseline: Accuracies
) -> Callable[[int, Row], None]:
    """Return a function that reports every epoch: the mean over finished seeds and this one."""
    base = float(baseline.mean())

    def report(number: int, row: Row) -> None:
        now = float(row["dev_accuracy"]) - base
        if not np.isfinite(now):
            raise DivergedError(f"dev accuracy {row['dev_accuracy']} in epoch {row['epoch']}")
        so_far = [*(float(m.difference.mean()) for m in measured), now]
        trial.report(float(np.mean(so_far)), first_step + number)
        if row["epoch"] and trial.should_prune():
            raise optuna.TrialPruned

    return report


def _remember(trial: Trial, measured: list[Measured], settings: StudySettings) -> None:
    """Store the constraint of a trial, and the figures that are shown about it."""
    kl = float(np.mean([m.kl for m in measured]))
    trial.set_constraint(KL, kl - settings.kl_budget)
    trial.set_user_attr(KL, kl)
    shots = np.mean([m.accuracies for m in measured], axis=0)
    for shot, accuracy in enumerate(shots, start=1):
        trial.set_user_attr(f"dev_acc_shot_{shot:02d}", float(accuracy))


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Ask for the values of a trial."""
    spans = {
        name: trial.suggest_float(name, span.low, span.high, log=span.log)
        for name in SPANS
        for span in [getattr(space, name)]
    }
    return {
        **spans,
        "epochs": trial.suggest_int("epochs", 0, space.epochs),
        "tau_start": trial.suggest_categorical("tau_start", list(space.tau_start)),
        "gen_methods": trial.suggest_categorical("gen_methods", list(space.gen_methods)),
    }
