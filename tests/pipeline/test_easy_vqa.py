"""A data set made by others: the guide for easy-VQA is followed, command by command."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lever_plus.cli.doctor import examine
from lever_plus.cli.main import app
from lever_plus.config.file import load_with_preset
from lever_plus.data.examples import Example, read_splits
from lever_plus.data.vqa_files import read_vqa_files
from pictures import draw
from pipeline.project import Project
from tiny_world import ROOT

PAGE = (ROOT / "docs" / "guides" / "own-data.md").read_text(encoding="utf-8")
INSTALL = "pip install -c constraints.txt easy-vqa\n"
"""The only command that is not run: the package is in the test environment."""
FEWER = "data: {source: {train: {sample: 240}, dev: {held_out: 40}, test: {sample: 60}}}\n"
SIZES = {"train": 240, "dev": 40, "test": 60}
OWN_SIZES = {"train": 80, "dev": 10, "test": 20}


def blocks(language: str) -> list[str]:
    """Return the page's blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


GET, PRESET, TINY, RUN, OWN_LISTS, OWN_SETTINGS, OWN_RUN = blocks("console")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small run of all that the page says, with copies of the shipped models."""
    project = Project(tmp_path_factory.mktemp("project"), "presets/smoke.yaml")
    assert GET.startswith(INSTALL)
    said = project.bash(GET.removeprefix(INSTALL))
    assert "38,575 questions about 4,000 images into data/easy-vqa/train" in said
    assert "9,673 questions about 1,000 images into data/easy-vqa/test" in said
    project.bash(PRESET)
    (project.folder / "fewer.yaml").write_text(FEWER)
    project.cli("params", "overlay", "fewer.yaml")
    project.bash(TINY)
    said = project.bash(RUN)
    assert "MISSING" not in said
    assert "zero-shot" in said
    return project


@pytest.fixture(scope="module")
def splits(project: Project) -> dict[str, list[Example]]:
    return read_splits(project.folder / "artifacts" / "prepare", project.folder)


@pytest.mark.long
def test_every_method_has_its_row(project: Project) -> None:
    summary = json.loads((project.folder / "metrics" / "summary.json").read_text())
    rows = {row["method"]: row["n"] for row in summary["rows"]}
    assert {"zero-shot", "random", "sttr", "sft", "rce", "agro", "grpo", "oracle"} <= rows.keys()
    assert rows["grpo"] == SIZES["test"]
    assert summary["metric"] == "VQA accuracy, convention community"
    assert summary["fallback_scores"] == 0


@pytest.mark.long
def test_the_examples_are_those_of_the_package(splits: dict[str, list[Example]]) -> None:
    """All images, compared by content, and all questions are the same."""
    import easy_vqa

    assert {split: len(rows) for split, rows in splits.items()} == SIZES
    read = {
        "train": (easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()),
        "test": (easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()),
    }
    for split, ((questions, answers, images), paths) in read.items():
        contents = {number: Path(path).read_bytes() for number, path in paths.items()}
        rows = zip(images, questions, answers, strict=True)
        there = {(contents[image], question): answer for image, question, answer in rows}
        taken = [*splits[split], *(splits["dev"] if split == "train" else ())]
        for example in taken:
            answer = there[Path(example.image).read_bytes(), example.question]
            assert example.answers == (answer,) * 10
    known = {e.answer for rows in splits.values() for e in rows}
    assert known <= set(easy_vqa.get_answers())


@pytest.mark.long
def test_no_image_is_in_two_splits(splits: dict[str, list[Example]]) -> None:
    images = {split: {Path(e.image).read_bytes() for e in rows} for split, rows in splits.items()}
    assert not images["train"] & (images["dev"] | images["test"])
    assert not images["dev"] & images["test"]


def test_the_page_s_list_of_ones_own_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for gray, name in enumerate(("street", "beach")):
        draw(tmp_path / "photos" / f"{name}.jpg", gray)
    (rows,) = blocks("csv")
    name, *command = shlex.split(OWN_LISTS.splitlines()[0])
    assert name == "lever-plus"
    Path(command[1]).write_text(rows)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert 'set image_name of data.source.train to "{image_id}.jpg"' in done.output
    made = tmp_path / "data" / "own" / "train"
    files = (made / "questions.json", made / "annotations.json", made / "images")
    examples = read_vqa_files(*files, "{image_id}.jpg")
    assert [(e.question, e.answer) for e in examples] == [
        ("What colour is the door?", "green"),
        ("How many people are there?", "2"),
    ]


@pytest.mark.long
def test_the_pipeline_reads_lists_of_ones_own(tmp_path: Path) -> None:
    """As the page says; what a reader edits by hand is replaced here."""
    project = Project(tmp_path)
    for split, count in (("train", 50), ("test", 10)):
        rows = []
        for number in range(count):
            draw(tmp_path / "photos" / f"{split}{number}.jpg", number + 100 * (split == "test"))
            rows += [f"What is {word}?,red,photos/{split}{number}.jpg" for word in ("this", "that")]
        (tmp_path / f"{split}.csv").write_text("\n".join(["question,answer,image", *rows]) + "\n")
    said = project.bash(OWN_LISTS)
    assert said.count('"{image_id}.jpg"') == 2
    project.bash(OWN_SETTINGS)
    own = tmp_path / "own.yaml"
    text = own.read_text().replace("{image_id}.png", "{image_id}.jpg")
    text = text.replace("sample: 2000", "sample: 80").replace("sample: 1000", "sample: null")
    text = text.replace("{held_out: 300}", "{held_out: 10}")
    text = text.replace("data:\n", "data:\n  rl_queries: 80\n  sft_queries: 20\n", 1)
    own.write_text(text)
    overlay, *rest = OWN_RUN.splitlines()
    project.bash(overlay)
    project.bash(TINY)
    said = project.bash("\n".join(rest))
    assert "MISSING" not in said
    splits = read_splits(tmp_path / "artifacts" / "prepare", tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == OWN_SIZES


def test_the_doctor_says_where_the_files_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = load_with_preset(ROOT / "params.yaml", ROOT / "presets" / "easy-vqa.yaml")
    notes = {item.name: item.note for item in examine(params) if not item.found}
    data = [note for name, note in notes.items() if name.startswith("data, ")]
    assert len(data) == 6
    assert all("get it from the package easy-vqa (see docs/guides/own-data.md)" in n for n in data)
