"""The snippets and commands of the guides run as they are written, one after the other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hosts.chat_server import Upstream, answering
from hosts.conftest import Asked
from servers import free_port
from tiny_world import ROOT
from trained_selector import SHOTS

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BY_SHELL = [guide for guide in GUIDES if "\n```bash\n" in guide.read_text(encoding="utf-8")]
"""Guides whose snippets need what their commands have started."""


@pytest.fixture
def folder(checkpoint: Path, asked: Asked, tmp_path: Path) -> Path:
    """A folder with what the guides name: a trained selector, a pool and a photo."""
    shutil.copytree(checkpoint, tmp_path / "artifacts" / "grpo" / "seed1" / "grpo")
    rows = [{"image": e.image, "question": e.question, "answer": e.answer} for e in asked.pool]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pool.jsonl").write_text(lines, encoding="utf-8")
    shutil.copy(asked.queries[0].image, tmp_path / "photo.png")
    return tmp_path


@pytest.mark.parametrize(
    "guide", [guide for guide in GUIDES if guide not in BY_SHELL], ids=lambda path: path.stem
)
def test_the_snippets_of_a_guide_run(guide: Path, folder: Path) -> None:
    snippets = PYTHON.findall(guide.read_text(encoding="utf-8"))
    assert snippets
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(snippets)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("guide", BY_SHELL, ids=lambda path: path.stem)
def test_the_commands_of_a_guide_run(guide: Path, folder: Path) -> None:
    """At a port that is free, beside a VLM server of ours."""
    steps, port = [], str(free_port())
    for kind, text in BLOCK.findall(guide.read_text(encoding="utf-8")):
        name = f"snippet{len(steps)}.py"
        if kind == "python":
            (folder / name).write_text(text.replace("8000", port), encoding="utf-8")
        steps.append(text if kind == "bash" else f"{sys.executable} {name}")
    script = "\n".join(["set -euo pipefail", *steps]).replace("8000", port)
    upstream = Upstream()
    with answering(upstream) as url, (folder / "said").open("w+b") as said:
        environment = {**os.environ, "VLM_URL": url}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            failed = process.wait(120)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # what the commands have left running
        said.seek(0)
        text = said.read().decode()
    assert not failed, text
    assert "\nred\n2 " in text
    assert len(json.loads(text.splitlines()[-1])["demonstrations"]) == SHOTS
    assert [turn["role"] for turn in upstream.messages] == ["user", "assistant"] * SHOTS + ["user"]
