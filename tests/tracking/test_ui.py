"""The MLflow UI shows what it is meant to show, in a real browser."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_runs import SUMMARY, grpo, of_one_seed, train

from lever_plus.cli.track import ui_environment, ui_options
from lever_plus.config.params import Params
from lever_plus.tracking.runs import pages, sync
from lever_plus.tracking.training_run import TrainingRun
from servers import free_port, wait_until_healthy

pytestmark = pytest.mark.long
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture
def server(client: object, params: Params, tmp_path: Path) -> Iterator[str]:
    """Serve the UI on a store with an RCE run, a GRPO run and their evaluation."""
    assert client
    if BROWSER is None:
        pytest.skip("no Chromium to look at the UI with (Debian: apt-get install chromium)")
    rce = TrainingRun("rce", "rce", 1, tmp_path / "rce" / "history.jsonl")
    for run in (rce, grpo(tmp_path, 1)):
        train(params, run)
    of_grpo = [row for row in SUMMARY["rows"] if row["method"] == "grpo"]
    rows = [*SUMMARY["rows"], *({**row, "method": "rce"} for row in of_grpo)]
    means = [*SUMMARY["means"], {**SUMMARY["means"][0], "method": "rce"}]
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(of_one_seed({**SUMMARY, "rows": rows, "means": means})))
    sync(params, [rce, grpo(tmp_path, 1)], summary, tmp_path / "usage")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", *ui_options(port), "--workers", "1"],
        env=ui_environment(f"sqlite:///{tmp_path / 'mlflow.db'}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(address)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def shown(address: str) -> str:
    """Return the page as the browser has drawn it."""
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu"]
    window = ["--window-size=2000,1200", "--virtual-time-budget=30000", "--dump-dom"]
    done = subprocess.run(
        [*command, *window, address], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def status(server: str, host: str) -> int:
    """Return the status that the server gives to a request under another host name."""
    request = urllib.request.Request(f"{server}/ajax-api/2.0/mlflow/experiments/search")
    request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_table_has_accuracies_and_runs_can_be_compared(server: str) -> None:
    compared = [
        TrainingRun(stage, stage, 1, Path(stage) / "history.jsonl") for stage in ("rce", "grpo")
    ]
    # A name that leads to this machine's own address; MLflow's list has `10.*`.
    for host in ("evil.example", "10.evil.example", "127.0.0.1.evil.example:5000"):
        assert status(server, host) == 403
    addresses = pages(server, compared)
    table = shown(addresses["Accuracy of every method"])
    for text in ("grpo/grpo/seed1", "rce/rce/seed1", "eval/acc/shot_01", "eval/acc/mean"):
        assert text in table
    for label, metric in (("KL", "train/kl"), ("accuracy over shots", "curve/acc")):
        compared = shown(addresses[f"RCE and GRPO: {label}"])
        assert "Error while loading" not in compared
        for text in ("Comparing 2 Runs", "rce/rce/seed1", "grpo/grpo/seed1", metric):
            assert text in compared
