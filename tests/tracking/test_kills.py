"""`track sync` is killed, and run beside others: every run is there once, and whole."""

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

import pytest
from test_live import serve
from test_runs import SUMMARY, grpo, write

from cut_off import cut_off
from lever_plus.config.params import Params
from lever_plus.tracking.makers import ENDED, STATE
from lever_plus.tracking.runs import sync
from lever_plus.tracking.store import Store
from lever_plus.tracking.training_run import TrainingRun

EXPECTED = {f"grpo/grpo/seed{seed}": 1 for seed in (1, 2)} | {"evaluate/random": 1}
WARM = multiprocessing.get_context("forkserver")
"""Its processes are forks of one that has done all imports, and made nothing with MLflow."""
WARM.set_forkserver_preload(
    [
        "pytest",
        "mlflow.store.tracking.sqlalchemy_store",
        "lever_plus.tracking.runs",
        "lever_plus.training.trainer",
    ]
)


class Syncing(NamedTuple):
    """A process that syncs, and where it says that it begins, then what `sync` returned."""

    process: BaseProcess
    said: "Connection[Any, Any]"


def trainings(folder: Path) -> list[TrainingRun]:
    return [grpo(folder, seed) for seed in (1, 2)]


def work(said: "Connection[Any, Any]", folder: Path, uri: str, temporary: Path | None) -> None:
    tempfile.tempdir = temporary and str(temporary)
    params = Params.model_validate_json((folder / "params.json").read_text())
    said.send("ready")
    store = Store(uri)
    runs = trainings(folder)
    said.send(sync(params, runs, folder / "summary.json", folder / "usage", store=store))


def start(folder: Path, uri: str, temporary: Path | None = None) -> Syncing:
    here, there = WARM.Pipe(duplex=False)
    process = WARM.Process(target=work, args=(there, folder, uri, temporary))
    process.start()
    there.close()
    return Syncing(process, here)


def ended(syncing: Syncing) -> tuple[int, int]:
    syncing.process.join(300)
    assert syncing.process.exitcode == 0
    assert syncing.said.recv() == "ready"
    counts: tuple[int, int] = syncing.said.recv()
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
    """Every run is there once, whole, with all its numbers, each of them once."""
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


def kill_often(project: Path, uri: str, kills: int, seed: int, longest: float) -> None:
    rng = random.Random(seed)
    for _ in range(kills):
        process, said = start(project, uri)
        assert said.recv() == "ready"
        time.sleep(rng.uniform(0, longest))
        process.kill()
        process.join()
    ended(start(project, uri))
    assert ended(start(project, uri)) == (0, 0)
    check(uri, EXPECTED)


@pytest.mark.slow
def test_sync_is_killed_at_twenty_moments(project: Path) -> None:
    """From the making of the store on; each kill leaves what the next sync takes up."""
    kill_often(project, f"sqlite:///{project / 'mlflow.db'}", 20, seed=1, longest=4)


@pytest.mark.slow
def test_ten_at_once_on_a_fresh_store(project: Path) -> None:
    uri = f"sqlite:///{project / 'mlflow.db'}"
    said = [ended(process) for process in [start(project, uri) for _ in range(10)]]
    assert sorted(said)[-1] == (2, 3)
    assert said.count((0, 0)) == 9
    check(uri, EXPECTED)


@pytest.mark.slow
def test_two_at_once_and_kills_on_postgresql(project: Path, postgres: str) -> None:
    uri = postgres.replace("/study", "/mlflow")
    said = [ended(process) for process in [start(project, uri) for _ in range(2)]]
    assert sorted(said) == [(0, 0), (2, 3)]
    check(uri, EXPECTED)
    with pytest.raises(Exception, match="another program's"):
        _with_foreign_tables(postgres)
    kill_often(project, uri, 5, seed=2, longest=1)


@pytest.mark.slow
def test_two_machines_that_sync_through_one_server(project: Path, fresh_store: Path) -> None:
    """Their locks do not reach each other."""
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
        assert ended(start(project, address)) == (0, 0)
    finally:
        stop()
    check(f"sqlite:///{store}", EXPECTED)


def _with_foreign_tables(uri: str) -> None:
    from sqlalchemy import create_engine, text

    with create_engine(uri).begin() as connection:
        connection.execute(text("CREATE TABLE studies (a TEXT)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
    Store(uri)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_a_sync_that_is_cut_off_anywhere_is_made_good(
    seed: int, client: Any, project: Path, params: Params
) -> None:
    """Of the calls to MLflow, one after another is the last."""
    assert client
    arguments = (params, trainings(project), project / "summary.json", project / "usage")
    rng = random.Random(seed)
    for _ in range(4):
        with cut_off(rng.randrange(3, 60)):
            sync(*arguments)
    sync(*arguments)
    assert sync(*arguments) == (0, 0)
    check(f"sqlite:///{project / 'mlflow.db'}", EXPECTED)
