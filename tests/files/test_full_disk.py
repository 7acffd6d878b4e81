"""A disk that fills while a command writes: one sentence, and the file as it was.

Stages on full disks are in `pipeline/test_killed_stages.py`.
"""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from tiny_world import ROOT

SMALL = 8_000
"""The most bytes that a file can have, as if the disk were full then."""


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
    assert done.stderr.startswith("lever-plus: params.yaml is not a file")
