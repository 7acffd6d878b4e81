"""Workers: any number of processes, on any number of machines, join one study.

A study lives in a journal file (default; safe for several processes of one machine and on shared
folders) or in a database. A worker that is killed loses its running trial at most: the next worker
that looks marks it failed and queues its values again. A worker whose trial was taken for lost (it
was stopped for too long, or cut off) leaves it and goes on.
"""

import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from lever_plus.config.file import changed_params
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.experiments.study.liveness import ROLE, requeue_lost, signs_of_life, tell
from lever_plus.experiments.study.objective import DivergedError, Measured, Trials
from lever_plus.experiments.study.settings import Space, StudySettings, baseline, changes
from lever_plus.pipeline.paths import Paths
from lever_plus.training.trainer import Row

LOG = logging.getLogger("lever_plus")
DATA, UID = "data", "uid"
KL = "kl"
POLL_S = 1.0
MOST_EPOCHS = 1000
"""Seed number s reports at steps s * MOST_EPOCHS + epoch, and at its end at the last of them."""


def open_study(settings: StudySettings) -> optuna.Study:
    """Create or join the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=settings.name,
        storage=open_storage(settings.storage),
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )


def open_storage(place: str) -> Any:
    """Open a journal file, or a database by its URL.

    Raises:
        UserError: The database can't be reached, or its driver is not installed.
    """
    if "://" not in place:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(JournalFileBackend(place))
    try:
        return optuna.storages.RDBStorage(place)
    except Exception as error:
        raise UserError(
            f"{place}: {error}. Is the server running, and its driver installed "
            "(`pip install 'lever-plus[postgres]'`)?"
        ) from error


def run_worker(params: Params, settings: StudySettings, trials: Trials | None = None) -> int:
    """Run trials until the study has as many as asked for; return how many this worker ran.

    Args:
        params: params.yaml.
        settings: Space, number of trials, seeds.
        trials: Data and policies; None: those of the pipeline.
    """
    study = open_study(settings)
    found = trials or Trials(params, Paths())
    _check_data(study, found.identity)
    queue_baseline(study, params, settings.space)
    run = objective(found, params, settings)
    finished = 0
    while True:
        requeue_lost(study, settings.stale_seconds)
        if _wants_trials(study, settings.trials):
            _run_trial(study, run, settings)
            finished += 1
        elif study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            time.sleep(POLL_S)  # should their workers be killed, someone must go on
        else:
            return finished


def _run_trial(study: optuna.Study, run: Callable[[Trial], float], settings: StudySettings) -> None:
    """Run one trial and tell how it ended.

    `Study.optimize` ends the process where another worker has failed the trial in the meantime.
    """
    trial = study.ask()
    # By the trial's number: workers, wherever and whenever they start, propose different values.
    seed = settings.sampler_seed + trial.number
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.startup_trials)
    value: float | None = None
    state: TrialState | None = TrialState.FAIL
    try:
        with signs_of_life(trial, settings.stale_seconds):
            value, state = run(trial), None
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (DivergedError, FloatingPointError) as error:
        LOG.warning("trial %d failed: %s; its values: %s", trial.number, error, trial.params)
    except UpdateFinishedTrialError:
        LOG.warning("trial %d was taken for lost and is left to another worker", trial.number)
    finally:
        tell(study, trial.number, value, state)


def _check_data(study: optuna.Study, identity: str) -> None:
    """Refuse to mix trials on different data: their differences could not be compared."""
    known = study.user_attrs.get(DATA)
    if known is None:
        study.set_user_attr(DATA, identity)
        study.set_user_attr(UID, uuid.uuid4().hex)
    elif known != identity:
        raise UserError(
            f"study {study.study_name} was made on other RL data, policies or settings: give the "
            "new one another name (search/params.yaml), or remove its storage."
        )


def _wants_trials(study: optuna.Study, trials: int) -> bool:
    """Whether the study has too few trials, failed ones not counted, or queued ones."""
    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return TrialState.WAITING in states or sum(state in counted for state in states) < trials


def queue_baseline(study: optuna.Study, params: Params, space: Space) -> None:
    """Queue the RCE-only baseline as the first trial, if the study has none."""
    values = baseline(params, space)
    study.enqueue_trial(values, user_attrs={ROLE: "baseline"}, skip_if_exists=True)


def objective(trials: Trials, params: Params, settings: StudySettings) -> Callable[[Trial], float]:
    """Return the function that Optuna calls."""

    def run(trial: Trial) -> float:
        _check_first(trial)
        values = suggest(trial, settings.space)
        changed = changed_params(params, changes(values, params, settings.space))
        measured: list[Measured] = []
        for index, seed in enumerate(settings.seeds):
            reporter = _reporter(trial, index, measured, trials, seed)
            measured.append(trials.measure(changed, values["epochs"], seed, reporter))
            trial.report(_mean(measured), (index + 1) * MOST_EPOCHS - 1)
            if trial.should_prune():
                raise optuna.TrialPruned
        _remember(trial, measured, settings)
        return _mean(measured)

    return run


def _mean(measured: list[Measured]) -> float:
    """Return the mean difference; what float rounding leaves of nothing is nothing."""
    return round(float(np.mean([m.difference.mean() for m in measured])), 9) + 0.0


def _check_first(trial: Trial) -> None:
    """Fail a second baseline: workers that start at once may all have queued one."""
    if trial.user_attrs.get(ROLE) == "baseline" and "again" not in trial.user_attrs:
        others = trial.study.get_trials(deepcopy=False)[: trial.number]
        if any(other.user_attrs.get(ROLE) == "baseline" for other in others):
            raise DivergedError("the baseline is there already")


def _reporter(
    trial: Trial, index: int, measured: list[Measured], trials: Trials, seed: int
) -> Callable[[int, Row], None]:
    """Return what reports every epoch: the mean over finished seeds and the one under way."""
    base = float(trials.baseline(seed).mean())

    def report(epoch: int, row: Row) -> None:
        now = float(row["dev_accuracy"]) - base
        so_far = [*(float(m.difference.mean()) for m in measured), now]
        trial.report(float(np.mean(so_far)), index * MOST_EPOCHS + epoch)
        if epoch and trial.should_prune():
            raise optuna.TrialPruned

    return report


def _remember(trial: Trial, measured: list[Measured], settings: StudySettings) -> None:
    """Keep what is shown about a trial, and its constraint."""
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
        for name in ("learning_rate", "kl_beta", "hard_share", "shot_slope")
        for span in [getattr(space, name)]
    }
    return {
        **spans,
        "epochs": trial.suggest_int("epochs", 0, space.epochs),
        "tau_start": trial.suggest_categorical("tau_start", list(space.tau_start)),
        "gen_methods": trial.suggest_categorical("gen_methods", list(space.gen_methods)),
    }
