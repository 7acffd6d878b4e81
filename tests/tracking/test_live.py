"""Training neither ends nor waits because of MLflow, whatever MLflow does meanwhile."""

import http.server
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_runs import ROWS, all_runs, grpo, train

from lever_plus.config.params import Params
from lever_plus.tracking import live
from lever_plus.tracking.history import History, read_history
from lever_plus.tracking.run import Run
from lever_plus.tracking.runs import live_run, sync
from lever_plus.tracking.store import Store
from servers import free_port, wait_until_healthy

LONGEST_S = 20.0
"""Seconds that a training without any work may take on a busy machine."""


def trained(params: Params, tmp_path: Path, seed: int = 1) -> float:
    """Train, check what the training leaves, and return the seconds that it took."""
    started = time.monotonic()
    run = grpo(tmp_path, seed)
    with pytest.warns(UserWarning, match="track sync") as found:
        train(params, run)
    assert len([each for each in found if "track sync" in str(each.message)]) == 1
    assert read_history(run.history) == [{**row, "seed": seed} for row in ROWS]
    return time.monotonic() - started


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("boom")


LONG = [pytest.param(broken, marks=pytest.mark.long) for broken in ("log_inputs", "flush", "tag")]


@pytest.mark.parametrize("broken", ["create", "log_row", "end", *LONG])
def test_training_ends_well_whatever_call_fails(
    broken: str, client: Any, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Store if broken == "create" else Run
    monkeypatch.setattr(where, broken, _raise)
    if broken == "log_inputs":
        monkeypatch.setattr("lever_plus.tracking.runs.data_inputs", lambda *_: [])
    trained(params, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    nothing = tmp_path / "nothing"
    # The process that logged is still there; what it left counts for nothing all the same.
    monkeypatch.setattr("lever_plus.tracking.makers._is_running", lambda *_: False)
    assert sync(params, [grpo(tmp_path, 1)], nothing, nothing) == (1, 0, 0)
    assert sync(params, [grpo(tmp_path, 1)], nothing, nothing) == (0, 0, 0)
    states = sorted(run.info.status for run in all_runs(client))
    assert states in (["FINISHED"], ["FINISHED", "KILLED"])


def test_warnings_that_are_errors_end_no_training(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://host")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(params, grpo(tmp_path, 1))


class Slow(http.server.BaseHTTPRequestHandler):
    """A server that is healthy at once and takes a long time for everything else."""

    def do_GET(self) -> None:
        if self.path != "/health":
            time.sleep(30)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def slow_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("server", ["slow_server", "silent_server", "none"])
def test_a_server_that_is_slow_or_down_is_asked_once_a_process(
    server: str,
    params: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    uri = uri if server == "none" else request.getfixturevalue(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert trained(params, tmp_path) < live.CLOSING_S + 1
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(params, grpo(tmp_path, 2))
    assert time.monotonic() - started < 1


def test_rows_do_not_wait_for_mlflow(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///never.db")
    monkeypatch.setattr("lever_plus.tracking.runs.Store", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(live, "OPENING_S", 0.5)
    monkeypatch.setattr(live, "CLOSING_S", 0.5)
    monkeypatch.setattr(live, "LONGEST", 100)
    run = grpo(tmp_path, 1)
    started = time.monotonic()

    def run_it() -> None:
        with live_run(params, run) as observe, History(run.history, observe) as history:
            for step in range(1000):
                history.write({"step": step})

    with pytest.warns(UserWarning, match="too slow"):
        run_it()
    assert time.monotonic() - started < 3
    assert len(read_history(run.history)) == 1000


def test_a_locked_store_is_left_alone(client: Any, params: Params, tmp_path: Path) -> None:
    assert client
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert trained(params, tmp_path) < LONGEST_S
        other.rollback()


@pytest.mark.long
def test_a_server_that_is_killed_while_it_trains(
    fresh_store: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ends as usual; once there is a server again, sync makes its run."""
    assert fresh_store
    store = tmp_path / "mlflow.db"
    store.write_bytes(fresh_store.read_bytes())
    address, stop = serve(store, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    run = grpo(tmp_path, 1)
    stopped = []

    def run_it() -> None:
        with live_run(params, run) as observe:
            with History(run.history, observe) as history:
                history.write({**ROWS[0], "seed": 1})
                until = time.monotonic() + 60
                while not list(Store(address).runs("")) and time.monotonic() < until:
                    time.sleep(0.5)
                stop()
                stopped.append(time.monotonic())
                history.write({**ROWS[1], "seed": 1})
            run.checkpoint.write_bytes(b"")

    with pytest.warns(UserWarning, match="track sync"):
        run_it()
    assert time.monotonic() - stopped[0] < live.CLOSING_S + 1
    assert read_history(run.history) == [{**row, "seed": 1} for row in ROWS]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    monkeypatch.setattr("lever_plus.tracking.makers._is_running", lambda *_: False)
    nothing = tmp_path / "nothing"
    assert sync(params, [run], nothing, nothing) == (1, 0, 0)
    states = sorted(each.info.status for each in Store().runs(""))
    assert states == ["FINISHED", "KILLED"]


def serve(store: Path, tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """Start MLflow's server; return its address, and what kills it and all its workers."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--backend-store-uri", f"sqlite:///{store}"],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    wait_until_healthy(address, tmp_path / "server.log")
    return address, lambda: os.killpg(process.pid, signal.SIGKILL)
