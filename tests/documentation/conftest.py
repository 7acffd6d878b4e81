"""A folder with what a reader of the pages has."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from lever_plus.hub.folder import MODELS
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.store.answers import Store
from tiny_world import ROOT, Folders, World
from trained_selector import write_checkpoint, written_pool

COPIED = ("params.yaml", "dvc.yaml", "presets", "metrics", "ablations", "search")
REVISION = "REVISION"
"""As pages write it: `lever-plus store prune --keep REVISION`."""


@pytest.fixture
def reader(
    checkpoint: Path, stopping: LearnedSelector, folders: Folders, world: World, tmp_path: Path
) -> Path:
    """Settings and metrics of the project, a trained selector, a pool, a photo, a list, stores."""
    folder = tmp_path / "project"
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(_made(source), _made(folder / name))
    seed = folder / "artifacts" / "grpo" / "seed1"
    shutil.copytree(checkpoint, seed / "grpo")
    write_checkpoint(stopping, folders, seed / "grpo-stop")
    pool = world.splits["train"]
    written_pool(folder / "pool.jsonl", pool)
    shutil.copy(world.splits["test"][0].image, folder / "photo.png")
    shutil.copytree(MODELS, folder / "models")
    for name in ("train.csv", "test.csv"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            rows = ((e.question, e.answer, e.image) for e in pool)
            csv.writer(file).writerows([("question", "answer", "image"), *rows])
    questions = [{"image": e.image, "question": e.question, "answers": e.answers} for e in pool]
    lines = "".join(json.dumps(row) + "\n" for row in questions)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    for number, name in enumerate(("cache/answers.sqlite", "other.sqlite")):
        store = Store(folder / name)
        identity = {"model": "m", "revision": REVISION, "dtype": "float32", "prompt_hash": "p"}
        key = bytes([number]) * 16
        store.put("answer", {**identity, "generation": "g"}, [(key, "dree")])  # type: ignore[typeddict-item]
        store.close()
    return folder


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
