"""The Python of the guides runs as it is written, one snippet after the other."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hosts.conftest import Asked
from tiny_world import ROOT

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
SLOW = {"mlflow"}
"""Guides that make a new MLflow store, which takes a while."""
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


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
    "guide",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
        for path in GUIDES
    ],
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
