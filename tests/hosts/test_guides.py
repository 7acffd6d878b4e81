"""The snippets and commands of the guides run as they are written, one after the other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hosts.chat_server import Upstream, answering
from hosts.conftest import Asked
from lever_plus.config.file import load_params, load_with_preset
from lever_plus.data.examples import Example
from lever_plus.hub.folder import MODELS
from lever_plus.selectors.learned import LearnedSelector
from pipeline.warm import warm_python
from servers import free_port
from tiny_world import ROOT, Folders
from trained_selector import SHOTS, write_checkpoint

GUIDES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs/guides").glob("*.md")}
LONG = {"mlflow"}
"""Guides that make a new MLflow store, which takes a while."""
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SETTINGS = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path, text in sorted(GUIDES.items())
    if "lmms" not in path.stem
    for number, block in enumerate(YAML.findall(text), start=1)
]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BY_SHELL = sorted(path for path, text in GUIDES.items() if "\n```bash\n" in text)
"""Guides whose snippets need what their commands have started."""


@pytest.fixture
def folder(
    checkpoint: Path, stopping: LearnedSelector, folders: Folders, asked: Asked, tmp_path: Path
) -> Path:
    """A folder with what the guides name: trained selectors, a pool and a photo."""
    seed = tmp_path / "artifacts" / "grpo" / "seed1"
    shutil.copytree(checkpoint, seed / "grpo")
    write_checkpoint(stopping, folders, seed / "grpo-stop")
    written(tmp_path / "pool.jsonl", [row(e) for e in asked.pool])
    shutil.copy(asked.queries[0].image, tmp_path / "photo.png")
    shutil.copytree(MODELS, tmp_path / "models")
    questions = [{**row(e), "answers": e.answers} for e in asked.examples[:8]]
    written(tmp_path / "questions.jsonl", questions)
    return tmp_path


def row(example: Example) -> dict[str, Any]:
    return {"image": example.image, "question": example.question, "answer": example.answer}


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] if path.stem in LONG else [])
        for path in sorted(GUIDES.keys() - BY_SHELL)
        if PYTHON.search(GUIDES[path])
    ],
)
def test_the_snippets_of_a_guide_run(guide: Path, folder: Path) -> None:
    snippets = PYTHON.findall(GUIDES[guide])
    done = subprocess.run(
        warm_python("\n".join(snippets)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("block", SETTINGS)
def test_the_settings_of_a_guide_are_valid(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in re.findall(r"(my_\w+):(\w+)", block):
        (tmp_path / f"{module}.py").write_text(f"def {name}(scores): ...", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    preset = tmp_path / "preset.yaml"
    preset.write_text(block, encoding="utf-8")
    assert load_with_preset(ROOT / "params.yaml", preset) != load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("guide", BY_SHELL, ids=lambda path: path.stem)
def test_the_commands_of_a_guide_run(guide: Path, folder: Path) -> None:
    """At a port that is free, beside a VLM server of ours."""
    steps, port = [], str(free_port())
    for kind, text in BLOCK.findall(GUIDES[guide]):
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
