"""Workers may be killed at any moment: the study ends as if none had been killed."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from formula_trials import FormulaTrials, project_params, settings
from optuna.trial import TrialState

from lever_plus.experiments.study.liveness import AGAIN, FAILED, place_of
from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.settings import StudySettings
from lever_plus.experiments.study.storage import find_study
from lever_plus.experiments.study.worker import run_worker

PARAMS = project_params()
TRIALS = 7


def quick(path: Path) -> StudySettings:
    """Return settings with which a nameless worker of this machine soon counts as lost."""
    update = {"stale_seconds": 0.5, "seeds": [1], "startup_trials": 3}
    return settings(str(path), TRIALS).model_copy(update=update)


def start(found: StudySettings) -> int:
    """Start a worker process without its imports; return its number."""
    child = os.fork()
    if child == 0:
        done = 1
        try:
            run_worker(PARAMS, found, cast(Trials, FormulaTrials()))
            done = 0
        finally:
            os._exit(done)
    return child


def results(study: optuna.Study) -> dict[int, Any]:
    """Return what every numbered place of a study gave; each gave it once."""
    trials = study.get_trials()
    assert all(trial.state.is_finished() for trial in trials)
    given: dict[int, Any] = {}
    for trial in trials:
        if trial.state != TrialState.FAIL or FAILED in trial.user_attrs:
            place = place_of(trial.number, trials)
            assert place not in given, f"place {place} counts twice"
            given[place] = (trial.state, trial.value, trial.params, trial.intermediate_values)
        else:
            assert [t.user_attrs.get(AGAIN) for t in trials].count(trial.number) == 1
    return given


def killed(found: StudySettings, rng: random.Random, whole: int, times: int) -> None:
    """Run workers one after another; kill all but the last in the middle of something."""
    path = Path(found.storage)
    for _ in range(times):
        worker = start(found)
        # By what it has written: a busy machine changes the moment, not the place.
        begin = path.stat().st_size if path.exists() else 0
        target = begin + rng.randrange(max(1, whole // times))
        while os.waitpid(worker, os.WNOHANG) == (0, 0):
            if path.exists() and path.stat().st_size > target:
                time.sleep(rng.random() * 0.01)
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)
                break
            time.sleep(0.0005)
    assert os.waitstatus_to_exitcode(os.waitpid(start(found), 0)[1]) == 0


def compare(tmp_path: Path, times: int, seed: int) -> None:
    plain, other = quick(tmp_path / "plain.journal"), quick(tmp_path / "killed.journal")
    run_worker(PARAMS, plain, cast(Trials, FormulaTrials()))
    whole = Path(plain.storage).stat().st_size
    killed(other, random.Random(seed), whole, times)
    assert results(find_study(other)) == results(find_study(plain))
    assert not os.path.lexists(f"{other.storage}.lock")


def test_a_study_whose_worker_is_killed_three_times_has_the_same_trials(tmp_path: Path) -> None:
    compare(tmp_path, times=3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_the_same_with_ten_kills(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, times=10, seed=seed)


def test_others_go_on_where_a_worker_is_killed(tmp_path: Path) -> None:
    found = quick(tmp_path / "study.journal")
    workers = [start(found) for _ in range(2)]
    while not Path(found.storage).exists() or Path(found.storage).stat().st_size < 9000:
        time.sleep(0.001)
    os.kill(workers[0], signal.SIGKILL)
    os.waitpid(workers[0], 0)
    assert os.waitstatus_to_exitcode(os.waitpid(workers[1], 0)[1]) == 0
    given = results(find_study(found))
    assert len([state for state, *_ in given.values() if state != TrialState.FAIL]) >= TRIALS
