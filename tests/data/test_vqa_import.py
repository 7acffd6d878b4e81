"""A user's list becomes a split in VQAv2 format, or a sentence says why not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from lever_plus.cli.import_vqa import Split
from lever_plus.cli.main import app
from lever_plus.data.examples import SPLITS, Example
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.data.vqa_import import import_list
from lever_plus.errors import UserError
from pictures import draw

ROWS = [["q?", "red", "a.png"], ["p?", "blue", "b.png"], ["p?", "red", "a.png"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three images, two of which are equal, in which lists are written."""
    for name, gray in (("a", 1), ("b", 2), ("again", 1)):
        draw(tmp_path / "images" / f"{name}.png", gray)
    return tmp_path


def make(folder: Path, rows: object, split: str = "train", image_name: str | None = None) -> Path:
    """Import a list; return the folder of the split."""
    path = folder / "list.json"
    path.write_text(json.dumps(rows))
    import_list(path, split, folder / "made" / split, folder / "images", image_name)
    return folder / "made" / split


def read(made: Path, image_name: str = "{image_id}.png", **how: bool) -> list[Example]:
    files = (made / "questions.json", made / "annotations.json", made / "images")
    return with_image_hashes(read_vqa_files(*files, image_name, **how))


def test_a_list_is_read_as_it_was_written_with_ten_equal_answers(folder: Path) -> None:
    examples = read(make(folder, ROWS))
    assert [[e.question, e.answer] for e in examples] == [row[:2] for row in ROWS]
    assert [e.answers for e in examples] == [(e.answer,) * 10 for e in examples]
    images = [(folder / "images" / row[2]).read_bytes() for row in ROWS]
    assert [Path(e.image).read_bytes() for e in examples] == images
    assert [e.image_id for e in examples] == [1_000_000_001, 1_000_000_002, 1_000_000_001]


def test_no_two_splits_share_an_id(folder: Path) -> None:
    assert [split.value for split in Split] == [*SPLITS]
    found = [e for split in SPLITS for e in read(make(folder, ROWS, split))]
    assert len({e.question_id for e in found}) == 9
    assert len({e.image_id for e in found}) == 6
    assert [e.question_id for e in found[6:]] == [3_000_000_001, 3_000_000_002, 3_000_000_003]


def test_ids_and_human_answers_of_ones_own_stay(folder: Path) -> None:
    answers = ["red", "blue", "blue"]
    row = {"image": "a.png", "question": "q?", "answers": answers}
    made = make(folder, [{**row, "question_id": 70, "image_id": 7}, ROWS[1]])
    with pytest.raises(UserError, match=r"do not have 10 answers \(first ids: 70\)"):
        read(made)
    first, second = read(made, allow_fallback=True)
    assert (first.question_id, first.image_id, first.answers) == (70, 7, tuple(answers))
    assert (second.question_id, second.image_id) == (1_000_000_002, 1_000_000_001)


def test_equal_images_are_one(folder: Path) -> None:
    made = make(folder, [ROWS[0], ["p?", "blue", "again.png"]])
    assert len({e.image for e in read(made)}) == 1
    assert len(list((made / "images").iterdir())) == 1


def test_images_of_several_formats_have_names_without_an_ending(folder: Path) -> None:
    draw(folder / "images" / "c.bmp", 3)
    made = make(folder, [*ROWS, ["q?", "red", "c.bmp"]])
    assert len(read(made, "{image_id}")) == 4


def no_link(_file: object, _there: object) -> NoReturn:
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("link", [os.link, no_link])
def test_images_are_linked_or_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[..., None]
) -> None:
    """A link to a picture is followed: from another folder it could lead elsewhere."""
    (folder / "images" / "c.png").symlink_to("a.png")
    monkeypatch.setattr(os, "link", link)
    (example,) = read(make(folder, [["q?", "red", "c.png"]]))
    image, source = Path(example.image), folder / "images" / "a.png"
    assert image.read_bytes() == source.read_bytes()
    assert not image.is_symlink()
    assert image.samefile(source) == (link is not no_link)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[1], ROWS[0]], r"item 3 asks the same about the same image as .*item 1"),
        (
            [{"image": "a.png", "question": "q?", "answers": ["a", "b", "b"], "answer": "a"}],
            "item 1: answer is not the most frequent of answers",
        ),
        (
            [
                {"image": "a.png", "question": "q?", "answer": "a", "image_id": 7},
                {"image": "b.png", "question": "q?", "answer": "a", "image_id": 7},
            ],
            r"item 2: image_id 7 belongs to another image in .*item 1",
        ),
        ([["q?", "red", "damaged.png"]], r"item 1: image .*damaged\.png cannot be read"),
    ],
)
def test_rows_that_contradict_each_other_leave_nothing(
    folder: Path, rows: object, message: str
) -> None:
    (folder / "images" / "damaged.png").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        make(folder, rows)
    assert not (folder / "made").exists()


def test_what_is_there_already_stays(folder: Path) -> None:
    kept = folder / "made" / "train" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(UserError, match=r"made/train exists already: remove it, or name another"):
        make(folder, ROWS)
    assert kept.exists()


def test_the_command_says_what_params_yaml_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(folder / "images" / "1.png", 5)
    monkeypatch.chdir(folder)
    Path("images/list.csv").write_text("question,answer,image\nq?,red,1\np?,blue,1\n")
    command = ["import-vqa", "images/list.csv", "--split", "dev", "--out", "made"]
    done = CliRunner().invoke(app, [*command, "--image-name", "{image_id}.png"])
    assert done.output == (
        "wrote 2 questions about 1 images into made/dev; in params.yaml, set image_name of "
        'data.source.dev to "{image_id}.png"\n'
    )
    assert len(read(folder / "made" / "dev")) == 2
    wrong = CliRunner().invoke(app, [*command, "--image-name", "{number}.png"])
    assert str(wrong.exception).startswith("--image-name '{number}.png': image_name can hold")
