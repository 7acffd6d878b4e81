"""Workers run the baseline first and no trial twice, and lose nothing but what was running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import optuna
import pytest
from formula_trials import BEST_RATE, FormulaTrials, project_params, settings
from optuna.trial import TrialState

from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.experiments.study.liveness import ALIVE, ROLE, WORKER, requeue_lost
from lever_plus.experiments.study.objective import Measured, Trials
from lever_plus.experiments.study.record import best_trials, table, write_results
from lever_plus.experiments.study.space import baseline
from lever_plus.experiments.study.storage import open_study
from lever_plus.experiments.study.worker import queue_baseline, run_worker
from lever_plus.tracking.makers import is_gone, name_process
from lever_plus.training.trainer import Row

PARAMS = project_params()
SCRIPT = Path(__file__).with_name("killed_worker.py")


def work(storage: str, trials: int = 12) -> optuna.Study:
    found = settings(storage, trials)
    run_worker(PARAMS, found, cast(Trials, FormulaTrials()))
    return open_study(found)


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


def test_trial_0_is_the_rce_only_baseline_and_its_difference_is_0(journal: str) -> None:
    study = work(journal, trials=3)
    first = study.trials[0]
    assert first.params["epochs"] == 0
    assert first.user_attrs[ROLE] == "baseline"
    assert first.value == pytest.approx(0.0, abs=1e-12)


def test_the_search_finds_what_is_good_and_counts_ended_trials(journal: str) -> None:
    study = work(journal, trials=30)
    ended = [t for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 30
    best = best_trials(study, 1)[0]
    assert BEST_RATE / 4 < best.params["learning_rate"] < BEST_RATE * 4
    assert best.constraints["kl"] <= 0


def test_a_trial_that_diverges_fails_and_the_study_goes_on(journal: str) -> None:
    study = work(journal, trials=30)
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    for trial in failed:
        assert trial.params["learning_rate"] > 4e-3
    assert all(
        t.params["learning_rate"] <= 4e-3 or not t.params["epochs"]
        for t in study.trials
        if t.state == TrialState.COMPLETE
    )


def test_going_on_proposes_nothing_twice(journal: str) -> None:
    work(journal, trials=5)
    work(journal, trials=10)
    study = work(journal, trials=15)
    rates = [t.params["learning_rate"] for t in study.trials]
    assert len(rates) >= 15
    assert len(set(rates)) == len(rates)


def test_bad_trials_are_pruned_between_epochs(journal: str) -> None:
    study = work(journal, trials=40)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert pruned
    complete = [t.value for t in study.trials if t.state == TrialState.COMPLETE]
    for trial in pruned:
        last = trial.intermediate_values[max(trial.intermediate_values)]
        assert last < max(value for value in complete if value is not None)


def test_trials_of_gone_workers_are_lost_and_those_of_living_ones_are_not(journal: str) -> None:
    study = open_study(settings(journal))
    here = name_process()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        ended = name_process(child.pid)
    living: list[tuple[object, float]] = [
        (here, 0.0),
        ({**here, "machine": "elsewhere"}, time.time()),
        ({"machine": here["machine"]}, time.time()),  # a name that is damaged
        ({**here, "process": "x"}, time.time()),
        ([here], time.time()),
    ]
    gone: list[tuple[object, float]] = [
        (ended, time.time()),
        ({**here, "started": here["started"] - 1000}, time.time()),  # its number is given again
        ({**here, "machine": "elsewhere"}, time.time() - 1000),
    ]
    trials = []
    for worker, seen in (*living, *gone):
        trials.append(study.ask())
        trials[-1].set_user_attr(WORKER, worker)
        trials[-1].set_user_attr(ALIVE, seen)
        trials[-1].suggest_float("learning_rate", 1e-4, 5e-3, log=True)
    lost = [trial.number for trial in trials[len(living) :]]
    assert requeue_lost(study, stale_seconds=100) == lost
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert [t.user_attrs["again"] for t in waiting] == lost
    assert requeue_lost(study, stale_seconds=100) == []


def test_results_that_can_t_be_written_end_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    study = open_study(settings(str(tmp_path / "study.journal")))
    with pytest.raises(UserError, match=r"results/trials\.csv can't be written \("):
        write_results(study, tmp_path / "results")


def test_a_sign_of_life_that_is_no_time_is_named(journal: str) -> None:
    study = open_study(settings(journal))
    study.ask().set_user_attr(ALIVE, "now")
    with pytest.raises(UserError, match="trial 0 gave its last sign of life at 'now'"):
        work(journal, trials=2)


def test_hosts_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process number of another host says nothing about this host's processes."""
    here = name_process()
    real = Path.read_text

    def read(path: Path, *arguments: Any, **named: Any) -> str:
        return "other\n" if path.name == "boot_id" else real(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read)
    assert is_gone(here) is None
    assert is_gone(name_process()) is False


def test_a_killed_child_that_nobody_has_waited_for_is_gone(journal: str) -> None:
    study = open_study(settings(journal))
    trial = study.ask()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        trial.set_user_attr(WORKER, name_process(child.pid))
        assert requeue_lost(study, stale_seconds=100) == []
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert requeue_lost(study, stale_seconds=100) == [trial.number]


def test_a_trial_that_has_only_just_begun_is_not_lost(journal: str) -> None:
    study = open_study(settings(journal))
    nameless = study.ask()
    silent = study.ask()
    silent.set_user_attr(WORKER, {**name_process(), "machine": "elsewhere"})
    assert requeue_lost(study, stale_seconds=100) == []
    assert requeue_lost(study, stale_seconds=0) == [nameless.number, silent.number]


def test_a_baseline_that_is_lost_at_once_is_queued_with_all_its_values(journal: str) -> None:
    study = open_study(settings(journal))
    queue_baseline(study, PARAMS, settings(journal).space)
    first = study.ask()
    first.suggest_float("learning_rate", 1e-4, 5e-3, log=True)
    assert requeue_lost(study, stale_seconds=0) == [0]
    study = work(journal, trials=2)
    assert study.trials[1].user_attrs == {**study.trials[1].user_attrs, ROLE: "baseline"}
    assert study.trials[1].params == baseline(PARAMS, settings(journal).space)
    assert study.trials[1].value == pytest.approx(0.0, abs=1e-12)


def test_a_worker_takes_over_the_last_trial_of_a_machine_that_falls_silent(journal: str) -> None:
    found = settings(journal, trials=3).model_copy(update={"stale_seconds": 2.0})
    silent = open_study(found).ask()
    silent.set_user_attr(WORKER, {**name_process(), "machine": "elsewhere"})
    silent.set_user_attr(ALIVE, time.time())
    run_worker(PARAMS, found, cast(Trials, FormulaTrials()))
    study = open_study(found)
    assert study.trials[silent.number].state == TrialState.FAIL
    assert study.trials[-1].user_attrs["again"] == silent.number
    assert [t.state for t in study.trials[1:]] == [TrialState.COMPLETE] * 3


class SilentTrials(FormulaTrials):
    """Trials that report nothing until their worker has given three signs of life."""

    def __init__(self, study: optuna.Study) -> None:
        """Look at this study."""
        super().__init__()
        self.study = study
        self.seen: set[float] = set()

    def measure(
        self, params: Params, epochs: int, seed: int, report: Callable[[int, Row], None]
    ) -> Measured:
        deadline = time.time() + 60
        while len(self.seen) < 3 and time.time() < deadline:
            time.sleep(0.02)
            self.seen.add(self.study.get_trials()[0].user_attrs[ALIVE])
        return super().measure(params, epochs, seed, report)


def test_a_trial_that_reports_nothing_gives_signs_of_life(journal: str) -> None:
    found = settings(journal, trials=1).model_copy(update={"stale_seconds": 0.4, "seeds": [1]})
    trials = SilentTrials(open_study(found))
    run_worker(PARAMS, found, cast(Trials, trials))
    assert len(trials.seen) == 3


class TakenTrials(FormulaTrials):
    """Trials of which one, by its number, is taken for lost by other workers while it runs."""

    def __init__(self, study: optuna.Study, number: int) -> None:
        """Take trial `number` of the study."""
        super().__init__()
        self.study, self.number = study, number

    def measure(
        self, params: Params, epochs: int, seed: int, report: Callable[[int, Row], None]
    ) -> Measured:
        taken = self.study.get_trials(deepcopy=False)[self.number :][:1]
        if taken and taken[0].state == TrialState.RUNNING:
            with mock.patch("lever_plus.experiments.study.liveness.is_lost", return_value=True):
                # Two at once, with the same view of the study: its values are queued once.
                seen = self.study.get_trials(states=(TrialState.RUNNING,))
                first = requeue_lost(self.study, stale_seconds=100)
                views = [seen, *[self.study.get_trials()] * 2]
                with mock.patch.object(self.study, "get_trials", side_effect=views):
                    second = requeue_lost(self.study, stale_seconds=100)
            assert (first, second) == ([self.number], [])
        return super().measure(params, epochs, seed, report)


def test_a_worker_whose_trial_is_taken_for_lost_leaves_it_and_goes_on(
    journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = settings(journal, trials=6)
    study = open_study(found)
    run_worker(PARAMS, found, cast(Trials, TakenTrials(study, number=2)))
    assert study.trials[2].state == TrialState.FAIL
    assert "trial 2 was counted as lost" in caplog.text
    again = [t for t in study.trials if t.user_attrs.get("again") == 2]
    assert [t.state for t in again] == [TrialState.COMPLETE]
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    assert len(study.get_trials(states=ended)) == 6


def test_the_table_and_the_plots_are_made_from_the_storage(journal: str, tmp_path: Path) -> None:
    study = work(journal, trials=12)
    frame = table(study)
    assert frame["trial"].iloc[0] == 0
    assert frame["feasible"].dtype == bool
    files = write_results(study, tmp_path / "results")
    names = {path.name for path in files}
    assert {"trials.csv", "history.png", "importances.png", "contour.png"} <= names
    assert all(path.stat().st_size > 0 for path in files)


def test_a_database_that_is_not_there_is_explained() -> None:
    with pytest.raises(UserError, match="Is the server running"):
        open_study(settings("postgresql+psycopg://nobody@127.0.0.1:1/none"))


def test_workers_that_queue_the_baseline_at_once_run_it_once(journal: str) -> None:
    study = open_study(settings(journal))
    for _ in range(2):
        study.enqueue_trial(
            baseline(PARAMS, settings(journal).space), user_attrs={ROLE: "baseline"}
        )
    study = work(journal, trials=3)
    states = [t.state for t in study.trials if t.user_attrs.get(ROLE) == "baseline"]
    assert states == [TrialState.COMPLETE, TrialState.FAIL]


def test_trials_on_other_data_are_not_mixed(journal: str) -> None:
    work(journal, trials=2)
    other = FormulaTrials()
    other.made_of = {"objective": "other data"}
    with pytest.raises(UserError, match="objective was formula and is now other data"):
        run_worker(PARAMS, settings(journal), cast(Trials, other))


def start(storage: str, trials: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(SCRIPT), storage, str(trials)])


def kill_and_go_on(storage: str) -> None:
    """Two workers; one is killed in the middle of a trial; a third finishes the study."""
    trials = 14
    workers = [start(storage, trials) for _ in range(2)]
    study = open_study(settings(storage, trials))
    deadline = time.time() + 180
    victim, name = workers[0], name_process(workers[0].pid)
    while True:
        assert time.time() < deadline, "the worker that is to be killed runs no trial"
        # Stopped, so that it is still in the trial that is seen here when it is killed.
        victim.send_signal(signal.SIGSTOP)
        running = study.get_trials(states=(TrialState.RUNNING,))
        in_trial = any(t.user_attrs.get(WORKER) == name for t in running)
        # If it is killed while it holds the journal's lock, all others wait for half a minute.
        if in_trial and len(study.trials) > 4 and not os.path.lexists(f"{storage}.lock"):
            break
        victim.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    mine = [t for t in study.get_trials() if t.user_attrs.get(WORKER) == name]
    lost = [t.number for t in mine if t.state == TrialState.RUNNING]
    done = {t.number: t.value for t in mine if t.state == TrialState.COMPLETE}
    assert len(lost) <= 1
    third = start(storage, trials)
    assert (workers[1].wait(300), third.wait(300)) == (0, 0)
    states = {t.number: t.state for t in study.get_trials()}
    assert all(states[number] == TrialState.FAIL for number in lost)
    again = {t.user_attrs.get("again"): t for t in study.get_trials()}
    for number in lost:
        assert again[number].state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        # What was proposed before the kill; a worker may die between two proposals of a trial.
        assert again[number].params.items() >= study.get_trials()[number].params.items()
    assert {n: t.value for n, t in enumerate(study.get_trials()) if n in done} == done
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    assert len(study.get_trials(states=ended)) >= trials
    # A trial may be lost before anything was proposed for it.
    proposed = [t for t in study.get_trials() if t.params and "again" not in t.user_attrs]
    fresh = [t.params["learning_rate"] for t in proposed]
    assert len(set(fresh)) == len(fresh)


@pytest.mark.slow
def test_a_killed_worker_loses_its_running_trial_at_most(journal: str) -> None:
    kill_and_go_on(journal)


@pytest.mark.long
def test_the_same_with_a_real_postgresql_server(postgres: str) -> None:
    kill_and_go_on(postgres)
