"""A disk that fills while a stage writes: one sentence, and every output whole or as before."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.formula_world import make_world
from tiny_world import ROOT

SMALL = 8_000
"""Bytes that a file can have: as if the disk were full after them."""


def limit() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


def run(folder: Path, *arguments: str, full: bool) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lever_plus.cli.main", *arguments],
        cwd=folder,
        preexec_fn=limit if full else None,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("stage", ["prepare", "pool"])
def test_a_stage_on_a_full_disk_leaves_its_outputs_as_they_were(tmp_path: Path, stage: str) -> None:
    world = make_world(tmp_path)
    world.run("prepare")
    world.run("pool")
    before = contents(tmp_path)
    done = run(tmp_path, stage, full=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "can't be written (File too large)" in done.stderr.splitlines()[-1]
    assert contents(tmp_path) == before
    assert run(tmp_path, stage, full=False).returncode == 0
    assert contents(tmp_path) == before


def test_a_preset_on_a_full_disk_leaves_params_as_they_were(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8") + "# " + "x" * SMALL + "\n"
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    preset = str(ROOT / "presets" / "smoke.yaml")
    done = run(tmp_path, "params", "overlay", preset, full=True)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "params.yaml can't be written" in done.stderr
    assert contents(tmp_path) == {"params.yaml": text.encode()}


def test_what_the_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    done = run(tmp_path, "params", "check", full=False)
    assert done.stderr.startswith("lever-plus: params.yaml is no file")
