"""The real lmms-eval asks house-word questions through its own command line.

Its model is the shipped VLM, loaded by lmms-eval's own code: what it answers is what the pipeline's
VLM answers to the same prompts.
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hosts.conftest import Asked
from lever_plus import open_vlm
from lever_plus.data.examples import Example
from lever_plus.metric import vqa_accuracy
from lever_plus.vlm.request import Request
from tiny_world import ROOT
from trained_selector import SHOTS, written_pool

pytestmark = pytest.mark.lmms
VLM = ROOT / "src" / "lever_plus" / "house_words" / "models" / "vlm"
GUIDE = (ROOT / "docs" / "guides" / "lmms-eval.md").read_text(encoding="utf-8")
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^python -m lmms_eval .*?[^\\]$", re.DOTALL | re.MULTILINE)
QUESTIONS = 50
PYTHON = "LEVER_PLUS_LMMS_EVAL"
"""Environment variable: the Python of an environment with lmms-eval."""


class Found(NamedTuple):
    """Answers in the order of the questions, and the accuracy that lmms-eval reports."""

    answers: list[str]
    accuracy: float


def tasks(folder: Path, checkpoint: Path) -> None:
    """Write the guide's task, and two that show other demonstrations."""
    (whole,) = YAML.findall(GUIDE)
    learned = whole.replace("artifacts/grpo/seed1/grpo", str(checkpoint))
    assert learned != whole
    folder.mkdir()
    for name, text in {
        "learned": learned,
        "fixed": re.sub(r"^    checkpoint:.*\n", "", learned, flags=re.MULTILINE),
        "without": learned.replace("shots: 2", "shots: 0"),
    }.items():
        named = text.replace("task: learned", f"task: {name}")
        (folder / f"{name}.yaml").write_text(named, encoding="utf-8")


def row(example: Example) -> dict[str, Any]:
    return {
        "image": example.image,
        "question": example.question,
        "answer": example.answer,
        "answers": list(example.answers),
    }


@pytest.fixture
def lmms_python() -> str:
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} names no Python with lmms-eval: make test-lmms-eval")
    return python


@pytest.fixture
def found(lmms_python: str, checkpoint: Path, asked: Asked, tmp_path: Path) -> dict[str, Found]:
    """What lmms-eval says of the guide's command, by task."""
    tasks(tmp_path / "tasks", checkpoint)
    written_pool(tmp_path / "pool.jsonl", asked.pool)
    lines = "".join(json.dumps(row(example)) + "\n" for example in asked.examples[:QUESTIONS])
    (tmp_path / "questions.jsonl").write_text(lines, encoding="utf-8")
    (command,) = COMMAND.findall(GUIDE)
    words = command.replace("\\\n", "").replace("VLM,", f"{VLM},dtype=float32,")
    words = words.replace("--tasks learned", "--tasks learned,fixed,without")
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        **{"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "shim"), str(ROOT / "src")]),
    }
    done = subprocess.run(
        [lmms_python, *words.split()[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = (tmp_path / "results").rglob("*_results.json")
    reported = json.loads(results.read_text(encoding="utf-8"))["results"]
    return {
        name: Found(answers(tmp_path / "results", name), reported[name]["vqa_accuracy,none"])
        for name in ("learned", "fixed", "without")
    }


def answers(folder: Path, task: str) -> list[str]:
    (path,) = folder.rglob(f"*_samples_{task}.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda each: each["doc_id"])
    return [each["filtered_resps"].strip() for each in rows]


def test_it_gets_the_answers_of_the_pipeline_zero_shot_fixed_and_learned(
    found: dict[str, Found], asked: Asked
) -> None:
    examples = asked.examples[:QUESTIONS]
    shown: dict[str, Sequence[tuple[Example, ...]]] = {
        "learned": asked.chosen[:QUESTIONS],
        "fixed": [tuple(asked.pool[:SHOTS])] * QUESTIONS,
        "without": [()] * QUESTIONS,
    }
    vlm = open_vlm("shipped:vlm")
    for name, pointers in shown.items():
        requests = [Request(p, e.query) for p, e in zip(pointers, examples, strict=True)]
        expected = vlm.answers(requests)
        assert found[name].answers == expected
        scores = [vqa_accuracy(a, e.answers) for a, e in zip(expected, examples, strict=True)]
        assert found[name].accuracy == pytest.approx(sum(scores) / QUESTIONS)
    assert len({tuple(each.answers) for each in found.values()}) == 3
