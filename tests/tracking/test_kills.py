"""`track sync` is killed, and run beside others: every run is there once, and complete."""

import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from test_live import serve
from test_runs import SUMMARY, grpo, write

from cut_off import cut_off
from lever_plus.config.params import Params
from lever_plus.tracking.makers import ENDED, STATE
from lever_plus.tracking.registry import CHAMPION, LOGGED, MODEL, Selectors
from lever_plus.tracking.runs import Synced, sync
from lever_plus.tracking.store import Store
from lever_plus.tracking.training_run import TrainingRun

EXPECTED = {f"grpo/grpo/seed{seed}": 1 for seed in (1, 2)} | {"evaluate/random": 1}
WARM = multiprocessing.get_context("forkserver")
"""Its processes are forks of one that has imported everything and not yet used MLflow."""
WARM.set_forkserver_preload(
    [
        "pytest",
        "mlflow.store.tracking.sqlalchemy_store",
        "lever_plus.tracking.runs",
        "lever_plus.training.trainer",
    ]
)


class Syncing(NamedTuple):
    """A process that syncs. It reports when it begins, and then what `sync` returned."""

    process: BaseProcess
    said: "Connection[Any, Any]"


def trainings(folder: Path) -> list[TrainingRun]:
    return [grpo(folder, seed) for seed in (1, 2)]


def selectors(folder: Path) -> Selectors:
    runs = trainings(folder)
    return Selectors(runs, runs[0], save)


def save(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
    """Write files in place of a model: one of its own, and one in a folder."""
    (path / "artifacts").mkdir(parents=True)
    (path / "MLmodel").write_text(f"{run_id} {model_id}")
    (path / "artifacts" / "policy").write_bytes(run.checkpoint.read_bytes())


def sync_all(params: Params, folder: Path, store: Store | None = None) -> Synced:
    files = folder / "summary.json", folder / "usage"
    return sync(params, trainings(folder), *files, store=store, selectors=selectors(folder))


def work(said: "Connection[Any, Any]", folder: Path, uri: str, temporary: Path | None) -> None:
    tempfile.tempdir = temporary and str(temporary)
    params = Params.model_validate_json((folder / "params.json").read_text())
    said.send("ready")
    store = Store(uri)
    said.send(sync_all(params, folder, store))


def start(folder: Path, uri: str, temporary: Path | None = None) -> Syncing:
    here, there = WARM.Pipe(duplex=False)
    process = WARM.Process(target=work, args=(there, folder, uri, temporary))
    process.start()
    there.close()
    return Syncing(process, here)


def ended(syncing: Syncing) -> tuple[int, int, int]:
    syncing.process.join(300)
    assert syncing.process.exitcode == 0
    assert syncing.said.recv() == "ready"
    counts: tuple[int, int, int] = syncing.said.recv()
    return counts


@pytest.fixture
def project(tmp_path: Path, params: Params) -> Path:
    """Two trainings with their evaluation, and no store."""
    (tmp_path / "params.json").write_text(params.model_dump_json())
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    for seed in (1, 2):
        write(grpo(tmp_path, seed))
    return tmp_path


def check(uri: str, expected: dict[str, int]) -> None:
    """Each run exists once and is complete, with each of its numbers once."""
    store = Store(uri)
    runs = list(store.runs(""))
    assert Counter(run.info.run_name for run in runs) == expected
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags[STATE] == ENDED
        if run.data.tags["pipeline.stage"] == "grpo":
            assert [(p.step, p.value) for p in store.history(run.info.run_id, "dev/reward")] == [
                (0, 0.5),
                (7, 0.75),
            ]
            assert len(store.history(run.info.run_id, "curve/acc")) == 2
            assert len(store.history(run.info.run_id, "eval/acc/mean")) == 1
    check_models(store, {run.info.run_id: run.data for run in runs})


def check_models(store: Store, runs: dict[str, Any]) -> None:
    """Every selector is one version, with all its files and figures; one is the champion."""
    versions = store.client.search_model_versions(f"name = '{MODEL}'")
    assert sorted(version.tags["pipeline.seed"] for version in versions) == ["1", "2"]
    assert store.client.get_model_version_by_alias(MODEL, CHAMPION).tags["pipeline.seed"] == "1"
    for version in versions:
        model = store.client.get_logged_model(version.tags[LOGGED])
        assert model.status == "READY"
        assert {m.key for m in model.metrics} >= {"eval/acc/mean", "curve/acc"}
        fetched = mlflow.artifacts.download_artifacts(version.source, tracking_uri=store.uri)
        folder = Path(str(fetched))
        assert (folder / "MLmodel").read_text() == f"{version.run_id} {model.model_id}"
        policy = (folder / "artifacts" / "policy").read_text()
        assert policy == f"weights of seed {runs[version.run_id].tags['pipeline.seed']}"


def kill_often(project: Path, uri: str, kills: int, seed: int, longest: float) -> None:
    rng = random.Random(seed)
    for _ in range(kills):
        process, said = start(project, uri)
        assert said.recv() == "ready"
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.join()
    ended(start(project, uri))
    assert ended(start(project, uri)) == (0, 0, 0)
    check(uri, EXPECTED)


@pytest.mark.long
def test_sync_is_killed_at_twenty_moments(project: Path) -> None:
    """The first is when the store is made; each sync continues from what the last kill left."""
    kill_often(project, f"sqlite:///{project / 'mlflow.db'}", 20, seed=1, longest=4)


@pytest.mark.long
def test_ten_at_once_on_a_fresh_store(project: Path) -> None:
    uri = f"sqlite:///{project / 'mlflow.db'}"
    said = [ended(process) for process in [start(project, uri) for _ in range(10)]]
    assert sorted(said)[-1] == (2, 3, 2)
    assert said.count((0, 0, 0)) == 9
    check(uri, EXPECTED)


@pytest.mark.long
def test_two_at_once_and_kills_on_postgresql(project: Path, postgres: str) -> None:
    uri = postgres.replace("/study", "/mlflow")
    said = [ended(process) for process in [start(project, uri) for _ in range(2)]]
    assert sorted(said) == [(0, 0, 0), (2, 3, 2)]
    check(uri, EXPECTED)
    with pytest.raises(Exception, match="another program's"):
        _with_foreign_tables(postgres)
    kill_often(project, uri, 5, seed=2, longest=1)


@pytest.mark.long
def test_two_machines_that_sync_through_one_server(project: Path, fresh_store: Path) -> None:
    """No lock holds for both of them."""
    store = project / "mlflow.db"
    store.write_bytes(fresh_store.read_bytes())
    address, stop = serve(store, project)
    try:
        processes = []
        for machine in ("a", "b"):
            (project / machine).mkdir()
            processes.append(start(project, address, project / machine))
        for process in processes:
            ended(process)
        # One that finds a run under way leaves what belongs to it to the other, or to the next.
        ended(start(project, address))
        assert ended(start(project, address)) == (0, 0, 0)
        check(address, EXPECTED)
    finally:
        stop()


def _with_foreign_tables(uri: str) -> None:
    from sqlalchemy import create_engine, text

    with create_engine(uri).begin() as connection:
        connection.execute(text("CREATE TABLE studies (a TEXT)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
    Store(uri)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3, 4))]
)
def test_a_sync_that_is_cut_off_anywhere_is_made_good(
    seed: int, client: Any, project: Path, params: Params
) -> None:
    """Each of the calls to MLflow in turn is the last."""
    assert client
    rng = random.Random(seed)
    for _ in range(6):
        with cut_off(rng.randrange(3, 80)):
            sync_all(params, project)
    sync_all(params, project)
    assert sync_all(params, project) == (0, 0, 0)
    check(f"sqlite:///{project / 'mlflow.db'}", EXPECTED)
