"""A study in MLflow: one parent, one child a trial, nothing twice, and a champion."""

from pathlib import Path
from typing import Any, cast

import pytest
from formula_trials import FormulaTrials, project_params, settings

from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.record import log_study, study_tags, write_results
from lever_plus.experiments.study.storage import open_study
from lever_plus.experiments.study.worker import run_worker
from lever_plus.tracking.store import EXPERIMENT, Store

pytestmark = pytest.mark.slow


def run(tmp_path: Path, trials: int) -> tuple[Any, int]:
    found = settings(str(tmp_path / "study.journal"), trials)
    run_worker(project_params(), found, cast(Trials, FormulaTrials()))
    study = open_study(found)
    _, made = log_study(study, found, write_results(study, tmp_path / "results"))
    return study, made


def test_trials_are_children_of_one_parent_and_none_is_logged_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

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
    Store().champion("model", study_tags(study), 0)
    assert client.get_model_version_by_alias("model", "champion").run_id == best.info.run_id
    (tmp_path / "study.journal").unlink()
    again, made = run(tmp_path, trials=3)
    assert made == len([t for t in again.trials if t.state.is_finished()])
    assert len(runs("parent")) == 2
