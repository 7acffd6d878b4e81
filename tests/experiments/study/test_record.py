"""A study in MLflow: one parent run, one child per trial, nothing twice, and a champion."""

import random
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from formula_trials import FormulaTrials, project_params, settings

from cut_off import cut_off
from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.record import log_study, study_tags, write_results
from lever_plus.experiments.study.storage import open_study
from lever_plus.experiments.study.worker import run_worker
from lever_plus.tracking.makers import ENDED, STATE
from lever_plus.tracking.registry import Registry
from lever_plus.tracking.store import EXPERIMENT, Store

pytestmark = pytest.mark.slow


def run(tmp_path: Path, trials: int) -> tuple[Any, int]:
    found = settings(str(tmp_path / "study.journal"), trials)
    run_worker(project_params(), found, cast(Trials, FormulaTrials()))
    study = open_study(found)
    _, made = log_study(study, found, write_results(study, tmp_path / "results"))
    return study, made


def test_trials_are_children_of_one_parent_and_none_is_logged_twice(
    tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    shutil.copy(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    study, made = run(tmp_path, trials=6)
    assert made == len([t for t in study.trials if t.state.is_finished()])
    assert run(tmp_path, trials=6)[1] == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id

    def runs(scope: str) -> list[Any]:
        return list(client.search_runs([experiment], f"tags.`pipeline.scope` = '{scope}'"))

    (parent,) = runs("parent")
    children = runs("child")
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert {"trials.csv", "history.png"} <= {
        artifact.path for artifact in client.list_artifacts(parent.info.run_id)
    }
    best = next(c for c in children if c.data.tags["optuna.trial"] == "0")
    assert best.data.tags["role"] == "baseline"
    assert best.data.metrics["study/difference"] == pytest.approx(0.0, abs=1e-9)
    Registry(Store()).crown_trial("model", study_tags(study), 0)
    assert client.get_model_version_by_alias("model", "champion").run_id == best.info.run_id
    (tmp_path / "study.journal").unlink()
    again, made = run(tmp_path, trials=3)
    assert made == len([t for t in again.trials if t.state.is_finished()])
    assert len(runs("parent")) == 2


def test_a_projection_that_is_cut_off_anywhere_is_made_good(
    tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call to MLflow in turn is the last one that is made."""
    shutil.copy(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    found = settings(str(tmp_path / "study.journal"), trials=4)
    run_worker(project_params(), found, cast(Trials, FormulaTrials()))
    study, rng = open_study(found), random.Random(1)
    files = write_results(study, tmp_path / "results")
    for most in (8, 16, 32, 64):
        with cut_off(rng.randrange(3, most)):
            log_study(study, found, files)
    parent, _ = log_study(study, found, files)
    assert log_study(study, found, files) == (parent, 0)
    store = Store()
    runs = {run.info.run_name: run for run in store.runs("")}
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    assert len(runs) == len(list(store.runs(""))) == 1 + len(ended)
    assert len(store.history(parent, "study/trials")) == 1
    for trial in ended:
        run = runs[f"study/{found.name}/trial-{trial.number:03d}"]
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.tags[STATE] == ENDED
        points = store.history(run.info.run_id, "study/difference_so_far")
        assert {p.step: p.value for p in points} == trial.intermediate_values
    # Another machine's parent was kept, and the one that the children hang on deleted.
    store.ask(store._client.delete_run, parent)
    other, made = log_study(study, found, files)
    assert other != parent
    assert made == 0
    children = [run for run in store.runs("") if run.info.run_id != other]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {other}
