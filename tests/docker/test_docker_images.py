"""Dockerfile and compose.yaml: pinned, not as root, healthy in order; the commands work."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from servers import free_port, wait_until_healthy
from tiny_world import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def test_bases_are_pinned_and_the_user_is_a_number_that_is_not_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base) for base in bases)
    users = re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE)
    assert users == ["10001:10001"]


def test_dependencies_are_locked_and_nothing_secret_or_cached_is_copied() -> None:
    for line in re.findall(r"pip install [^\n]*", DOCKERFILE):
        assert "--no-cache-dir" in line
        assert "-c constraints.txt" in line or "--no-deps" in line
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", ".dvc/cache", "mlflow.db*", "artifacts", "cache"} <= set(ignored)
    assert not re.search(r"(PASSWORD|TOKEN|SECRET)=", DOCKERFILE)


def test_the_image_has_the_extras_of_what_runs_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    installed = set(extras.split(","))
    assert installed <= project["optional-dependencies"].keys()
    services = {"tracking", "postgres", "study", "dashboard"}
    assert installed >= services | {"pipeline", "plots", "openai"}


def test_every_service_is_checked_or_runs_once_and_waits_for_what_it_needs() -> None:
    once = {"migrate", "pipeline", "worker"}
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == once
    for service in SERVICES.values():
        for condition in service.get("depends_on", {}).values():
            assert condition["condition"].startswith("service_")
    assert SERVICES["postgres"]["image"].count(":") == 1
    assert "user" not in SERVICES["mlflow"]


def test_ports_are_published_on_loopback_alone_and_no_password_is_written_down() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    text = (ROOT / "compose.yaml").read_text()
    given = re.findall(r"^\s+POSTGRES_PASSWORD: (.*)$", text, flags=re.MULTILINE)
    assert given == ["${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"]
    assert text.count("lever:${POSTGRES_PASSWORD:?") == text.count("lever:") == 2


def test_workers_and_the_dashboard_are_in_the_profile_study() -> None:
    assert SERVICES["worker"]["profiles"] == SERVICES["dashboard"]["profiles"] == ["study"]


def command_of(service: str) -> str:
    """Return the shell line that a service runs."""
    entry = SERVICES[service]
    assert entry["entrypoint"] == ["sh", "-c"]
    return str(entry["command"][0]).replace("$$", "$")


@pytest.fixture
def stack(postgres: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run migration and server as compose does, on a real PostgreSQL."""
    binaries = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_BACKEND_STORE_URI": postgres.removesuffix("study") + "mlflow",
        "LEVER_PLUS_STUDY_STORAGE": postgres,
    }
    migrate = command_of("migrate")
    subprocess.run(["sh", "-c", migrate], env=environment, check=True, capture_output=True)
    serve, port = command_of("mlflow"), free_port()
    for before, after in (
        ("/mlartifacts", str(tmp_path / "mlartifacts")),
        ("0.0.0.0", "127.0.0.1"),
        ("--port 5000", f"--port {port} --workers 1"),
    ):
        assert before in serve
        serve = serve.replace(before, after)
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        ["sh", "-c", serve], env=environment, cwd=tmp_path, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_healthy(address, tmp_path / "log")
        yield {**environment, "MLFLOW_TRACKING_URI": address}
    finally:
        process.terminate()
        process.wait(60)
        log.close()


@pytest.mark.long
def test_the_services_work_together(stack: dict[str, str]) -> None:
    """The server answers to its compose name, and a worker joins the study in the database."""
    address = stack["MLFLOW_TRACKING_URI"]
    request = urllib.request.Request(f"{address}/health", headers={"Host": "mlflow:5000"})
    assert urllib.request.urlopen(request, timeout=5).status == 200
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.create_experiment("lever-plus")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "eval/acc/mean", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"eval/acc/mean": 0.5}
    worker = Path(__file__).parent.parent / "experiments" / "study" / "killed_worker.py"
    storage = stack["LEVER_PLUS_STUDY_STORAGE"]
    done = subprocess.run(
        [sys.executable, str(worker), storage, "3"], env=stack, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert SERVICES["worker"]["command"][:3] == ["lever-plus", "study", "run"]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
