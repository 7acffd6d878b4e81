"""`track sync` is killed, and run beside others: every run is there once, and whole."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from test_live import serve
from test_runs import SUMMARY, grpo, write

from lever_plus.config.params import Params
from lever_plus.tracking.makers import ENDED, STATE
from lever_plus.tracking.store import Store

EXPECTED = {f"grpo/grpo/seed{seed}": 1 for seed in (1, 2)} | {"evaluate/random": 1}
SYNC = """
import json, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from lever_plus.config.params import Params
from lever_plus.tracking.runs import sync
from lever_plus.tracking.store import Store
from lever_plus.tracking.training_run import TrainingRun
folder = Path({folder!r})
params = Params.model_validate_json((folder / "params.json").read_text())
runs = [TrainingRun("grpo", "grpo", k, folder / f"seed{{k}}" / "history.jsonl") for k in (1, 2)]
print("ready", flush=True)
store = Store({uri!r})
print(sync(params, runs, folder / "summary.json", folder / "usage", store=store), flush=True)
"""


def start(folder: Path, uri: str) -> "subprocess.Popen[str]":
    code = SYNC.format(tests=str(Path(__file__).parent), folder=str(folder), uri=uri)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: "subprocess.Popen[str]") -> str:
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return said.splitlines()[-1]


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
        process = start(project, uri)
        assert process.stdout
        process.stdout.readline()
        time.sleep(rng.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ended(start(project, uri))
    assert ended(start(project, uri)) == "(0, 0)"
    check(uri, EXPECTED)


@pytest.mark.slow
def test_sync_is_killed_at_twenty_moments(project: Path) -> None:
    """From the making of the store on; each kill leaves what the next sync takes up."""
    kill_often(project, f"sqlite:///{project / 'mlflow.db'}", 20, seed=1, longest=8)


@pytest.mark.slow
def test_ten_at_once_on_a_fresh_store(project: Path) -> None:
    uri = f"sqlite:///{project / 'mlflow.db'}"
    said = [ended(process) for process in [start(project, uri) for _ in range(10)]]
    assert sorted(said)[-1] == "(2, 3)"
    assert said.count("(0, 0)") == 9
    check(uri, EXPECTED)


@pytest.mark.slow
def test_two_at_once_and_kills_on_postgresql(project: Path, postgres: str) -> None:
    uri = postgres.replace("/study", "/mlflow")
    said = [ended(process) for process in [start(project, uri) for _ in range(2)]]
    assert sorted(said) == ["(0, 0)", "(2, 3)"]
    check(uri, EXPECTED)
    with pytest.raises(Exception, match="another program's"):
        _with_foreign_tables(postgres)
    kill_often(project, uri, 5, seed=2, longest=4)


@pytest.mark.slow
def test_two_machines_that_sync_through_one_server(
    project: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their locks do not reach each other."""
    store = project / "mlflow.db"
    store.write_bytes(fresh_store.read_bytes())
    address, stop = serve(store, project)
    try:
        processes = []
        for machine in ("a", "b"):
            monkeypatch.setenv("TMPDIR", str(project / machine))
            (project / machine).mkdir()
            processes.append(start(project, address))
        for process in processes:
            ended(process)
        # One that finds a run under way leaves what belongs to it to the other, or to the next.
        ended(start(project, address))
        assert ended(start(project, address)) == "(0, 0)"
    finally:
        stop()
    check(f"sqlite:///{store}", EXPECTED)


def _with_foreign_tables(uri: str) -> None:
    from sqlalchemy import create_engine, text

    with create_engine(uri).begin() as connection:
        connection.execute(text("CREATE TABLE studies (a TEXT)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num TEXT)"))
    Store(uri)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program's own handles it."""


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_a_sync_that_is_cut_off_anywhere_is_made_good(
    seed: int,
    client: Any,
    project: Path,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the calls to MLflow, one after another is the last."""
    from lever_plus.tracking import store as stores
    from lever_plus.tracking.runs import sync

    assert client
    runs = [grpo(project, 1), grpo(project, 2)]
    arguments = (params, runs, project / "summary.json", project / "usage")
    real, rng = stores.ask, random.Random(seed)
    for _ in range(4):
        left = [rng.randrange(3, 60)]

        def cut(*given: Any, left: list[int] = left, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*given, **named)

        monkeypatch.setattr(stores, "ask", cut)
        with suppress(Killed):
            sync(*arguments)
    monkeypatch.setattr(stores, "ask", real)
    sync(*arguments)
    assert sync(*arguments) == (0, 0)
    check(f"sqlite:///{project / 'mlflow.db'}", EXPECTED)
