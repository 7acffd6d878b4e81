"""Prepare and doctor refuse, by question id, what the project's VLM would not read as text."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from test_fuzz_prompts import MARKS, bad_texts

from lever_plus.cli.doctor import examine
from lever_plus.config.file import load_params, overlay
from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.data.examples import read_splits
from lever_plus.errors import UserError
from lever_plus.pipeline import prepare
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.texts import reader_of
from pipeline.okvqa_fixture import PRESET, make_files
from tiny_world import ROOT, Folders

QUESTION = "OpenEnded_mscoco_{}2014_questions.json"
ANSWERS = "mscoco_{}2014_annotations.json"


class Project:
    """A project with files in OK-VQA's format and the tiny VLM."""

    def __init__(self, folder: Path, vlm: str) -> None:
        """Write the files and params.yaml."""
        make_files(folder / "data")
        self.folder = folder
        preset, path = folder / "preset.yaml", folder / "params.yaml"
        preset.write_text(PRESET.format(root=folder / "data", vlm=vlm, clip="none"))
        path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        overlay(path, preset)
        self.params = load_params(path)

    def change(self, name: str, split: str, index: int, text: str) -> int:
        """Give a question, or all its answers, another text; return its id."""
        path = self.folder / "data" / name.format(split)
        content = json.loads(path.read_text(encoding="utf-8"))
        row = content["questions" if name == QUESTION else "annotations"][index]
        if name == QUESTION:
            row["question"] = text
        else:
            for answer in row["answers"]:
                answer["answer"] = text
        path.write_text(json.dumps(content), encoding="utf-8")
        return int(row["question_id"])

    def prepare(self, params: Params | None = None) -> str:
        settings = settings_of(prepare.Settings, params or self.params)
        return prepare.run(settings, Paths(self.folder)).text

    def with_vlm(self, **changes: Any) -> Params:
        vlm = self.params.vlm.model_copy(update=changes)
        return self.params.model_copy(update={"vlm": vlm})


@pytest.fixture
def project(tmp_path: Path, folders: Folders) -> Project:
    return Project(tmp_path, str(folders.vlm))


@pytest.mark.parametrize(
    ("name", "split", "text"),
    [
        (QUESTION, "train", "what is <image>?"),
        (QUESTION, "val", "is it <IMAGE>?"),
        (ANSWERS, "train", "red </s>"),
        (ANSWERS, "train", ""),
        (ANSWERS, "val", "?!"),
    ],
)
def test_a_text_that_is_none_is_refused_by_its_id(
    project: Project, name: str, split: str, text: str
) -> None:
    number = project.change(name, split, 3, text)
    with pytest.raises(UserError, match=rf"question {number} cannot be|\(first ids: {number}\)"):
        project.prepare()
    (item,) = [item for item in examine(project.params) if item.name == "data, texts"]
    assert (item.found, str(number) in item.note) == (False, True)


def test_good_texts_are_prepared(project: Project) -> None:
    assert "texts checked" not in project.prepare()
    (item,) = [item for item in examine(project.params) if item.name == "data, texts"]
    assert item == ("data, texts", True, "checked")


def test_doctor_names_an_instruction_that_cannot_be_tried(project: Project) -> None:
    tried = project.params.evaluate.model_copy(update={"instructions": ["answer </s>"]})
    params = project.params.model_copy(update={"evaluate": tried})
    (item,) = [item for item in examine(params) if item.name == "data, texts"]
    assert (item.found, "'answer </s>'" in item.note) == (False, True)


def test_doctor_names_a_vlm_that_cannot_read(project: Project, folders: Folders) -> None:
    folder = project.folder / "vlm"
    shutil.copytree(folders.vlm, folder)
    template = folder / "chat_template.jinja"
    whole = template.read_text(encoding="utf-8")
    for content, why in (
        (whole.replace("{{", "{{ '' if 0 else 1 / 0 }}{{", 1).encode(), "fails (division by zero)"),
        (b"\xff\xfe", "cannot be loaded"),
    ):
        template.write_bytes(content)
        params = project.with_vlm(path=str(folder))
        (item,) = [item for item in examine(params) if item.name == "data, texts"]
        assert (item.found, why in item.note, str(folder) in item.note) == (False, True, True)
    template.write_text("{{ 1 / 0 }}", encoding="utf-8")
    with pytest.raises(UserError, match=r"vlm fails \(division by zero\)"):
        project.prepare(params)
    assert not list((project.folder / "artifacts").rglob("*.jsonl"))


def test_without_a_processor_marks_of_known_families_are_refused(project: Project) -> None:
    params = project.with_vlm(path="nowhere/at/all")
    assert "but only for special tokens of known VLMs: nowhere" in project.prepare(params)
    project.change(QUESTION, "val", 0, "is {|x|} it?")
    project.prepare(params)
    number = project.change(QUESTION, "val", 0, "is <|im_end|> it?")
    with pytest.raises(UserError, match=f"question {number} "):
        project.prepare(params)


def test_a_bad_instruction_is_refused_before_anything_is_trained(
    project: Project, params: Params, tmp_path: Path
) -> None:
    bad = params.vlm.prompt.model_copy(update={"instruction": "answer </s>"})  # type: ignore[union-attr]
    vlm = params.vlm.model_copy(update={"prompt": bad})
    tried = params.evaluate.model_copy(update={"instructions": ["Be brief.", "answer </s>"]})
    for changes in ({"vlm": vlm}, {"evaluate": tried}):
        with pytest.raises(UserError, match="the instruction 'answer </s>' cannot be in a prompt"):
            project.prepare(params.model_copy(update=changes))
    assert not list((tmp_path / "artifacts" / "prepare").glob("*.jsonl"))


def test_bad_texts_in_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that passes is the same in the examples as in the files."""
    rng = random.Random(8)
    good: dict[str, dict[str, bytes]] = {QUESTION: {}, ANSWERS: {}}
    ids: dict[tuple[str, str], list[int]] = {}
    for kind, files in good.items():
        for split in ("train", "val"):
            files[split] = (project.folder / "data" / kind.format(split)).read_bytes()
            rows = json.loads(files[split])["questions" if kind == QUESTION else "annotations"]
            ids[kind, split] = [row["question_id"] for row in rows]
    data = project.params.data.model_copy(update={"near_duplicate_bits": None})
    quick = project.params.model_copy(update={"data": data})
    reader = reader_of(quick.vlm)
    monkeypatch.setattr(prepare, "reader_of", lambda _vlm: reader)

    def run(kind: str, split: str, index: int, text: str) -> None:
        assert project.change(kind, split, index, text) == ids[kind, split][index]
        number = ids[kind, split][index]
        try:
            project.prepare(quick)
        finally:
            path = project.folder / "data" / kind.format(split)
            path.write_bytes(good[kind][split])
        splits = read_splits(project.folder / "artifacts" / "prepare", project.folder)
        (example,) = [e for rows in splits.values() for e in rows if e.question_id == number]
        assert text == (example.question if kind == QUESTION else example.answer)

    def inputs() -> Iterator[Bad]:
        for text in bad_texts(list(MARKS), rng, 70):
            kind, split = rng.choice((QUESTION, ANSWERS)), rng.choice(("train", "val"))
            index = rng.randrange(12)
            yield Bad(
                f"{kind}, {split}, {index}: {text!r}",
                lambda k=kind, s=split, i=index, t=text: run(k, s, i, t),
                (
                    f"question {ids[kind, split][index]} ",
                    f"ids: {ids[kind, split][index]})",
                    ".json is",
                ),
            )

    try_all("prepare, texts", inputs())
