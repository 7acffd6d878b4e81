"""Bad question and annotation files stop the run with one sentence that names the offenders."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lever_plus.data.examples import LARGEST_ID, Example, read_examples, write_examples
from lever_plus.data.image_ids import with_image_ids
from lever_plus.data.splits import check_leakage, hold_out, sample, without_images_of
from lever_plus.data.vqa_files import QuestionsFile, load, read_vqa_files, with_image_hashes
from lever_plus.errors import UserError
from lever_plus.vlm.scorer import score_answer
from pictures import draw


class Files:
    """Two questions with annotations and images, to be damaged by a test."""

    def __init__(self, folder: Path) -> None:
        """Write the images."""
        self.folder = folder
        self.questions = [self.question(1), self.question(2)]
        self.annotations = [self.annotation(1), self.annotation(2)]
        self.image_name = "{image_id}.png"
        for image in (1, 2):
            draw(folder / f"{image}.png")

    def question(self, number: int) -> dict[str, Any]:
        return {"question_id": number, "image_id": number, "question": f"q{number}?"}

    def annotation(self, number: int) -> dict[str, Any]:
        answers = [{"answer_id": i, "answer": "yes" if i < 7 else "no"} for i in range(1, 11)]
        return {"question_id": number, "image_id": number, "answers": answers}

    def read(self, *, allow_fallback: bool = False) -> list[Example]:
        questions, annotations = self.folder / "q.json", self.folder / "a.json"
        questions.write_text(json.dumps({"questions": self.questions}))
        annotations.write_text(json.dumps({"annotations": self.annotations}))
        examples = read_vqa_files(
            questions,
            annotations,
            self.folder,
            self.image_name,
            answers_per_question=10,
            allow_fallback=allow_fallback,
        )
        return with_image_hashes(examples)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_good_files_are_read_in_the_order_of_the_questions(files: Files) -> None:
    examples = files.read()
    assert [e.question_id for e in examples] == [1, 2]
    assert examples[0].answer == "yes"
    assert len(examples[0].answers) == 10


def test_a_question_without_annotation_is_refused(files: Files) -> None:
    files.annotations.pop()
    with pytest.raises(UserError, match=r"1 questions of .*have no annotation \(first ids: 2\)"):
        files.read()


def test_an_annotation_without_question_is_refused(files: Files) -> None:
    files.questions.pop(0)
    with pytest.raises(UserError, match=r"have no question \(first ids: 1\)"):
        files.read()


def test_a_question_id_that_occurs_twice_is_refused(files: Files) -> None:
    files.questions.append(files.question(2))
    with pytest.raises(UserError, match=r"occur twice in .*q.json \(first ids: 2\)"):
        files.read()


def test_a_wrong_number_of_answers_is_refused(files: Files) -> None:
    files.annotations[1]["answers"].pop()
    with pytest.raises(UserError, match=r"do not have 10 answers \(first ids: 2\)"):
        files.read()


def test_a_missing_image_is_refused(files: Files) -> None:
    (files.folder / "2.png").unlink()
    with pytest.raises(UserError, match=r"1 images of .* are missing in .*\(first ids: 2\)"):
        files.read()


def test_files_that_name_different_images_are_refused(files: Files) -> None:
    files.annotations[0]["image_id"] = 2
    with pytest.raises(UserError, match="name different images"):
        files.read()


def test_a_file_that_is_not_json_is_refused(files: Files) -> None:
    files.read()
    (files.folder / "q.json").write_text("{")
    with pytest.raises(UserError, match="not a VQAv2 questions file"):
        read_vqa_files(files.folder / "q.json", files.folder / "a.json", files.folder, "{image_id}")


def test_an_answer_that_is_no_text_is_refused_with_its_place(files: Files) -> None:
    files.annotations[1]["answers"][3]["answer"] = 7
    with pytest.raises(UserError, match=r"annotations\[1\]\.answers\[3\]\.answer"):
        files.read()


@pytest.mark.parametrize("twice", ["image\\u005fid", "\\u0069mage_id", "image_i\\u0064"])
def test_a_key_that_is_there_twice_is_refused_in_whatever_way_it_is_spelled(
    files: Files, twice: str
) -> None:
    files.read()
    path = files.folder / "q.json"
    text = path.read_text().replace('"image_id": 1', f'"{twice}": 2, "image_id": 1')
    path.write_text(text)
    with pytest.raises(UserError, match=r"q\.json is not valid JSON \(the key 'image_id' occurs"):
        load(path, QuestionsFile, "questions")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200e", "\u00ad"])
def test_a_question_or_an_answer_that_nobody_sees_is_empty(files: Files, text: str) -> None:
    files.questions[1]["question"] = text
    with pytest.raises(UserError, match=r"are empty or hold .*first ids: 2"):
        files.read()
    files.questions[1]["question"] = "q?\u200b"
    files.annotations[1]["answers"] = [{"answer": text}] * 10
    with pytest.raises(UserError, match=r"most frequent answers .*first ids: 2"):
        files.read()


def test_a_missing_folder_of_images_is_named(files: Files, tmp_path: Path) -> None:
    files.read()
    with pytest.raises(UserError, match=r"nowhere is missing: point data.source at your folder"):
        read_vqa_files(
            files.folder / "q.json", files.folder / "a.json", tmp_path / "nowhere", "{image_id}"
        )


def test_another_number_of_answers_is_a_marked_fallback_only_on_request(files: Files) -> None:
    """Without ten answers there is no VQA accuracy: a score by exact match is marked as such."""
    files.annotations[1]["answers"] = [{"answer_id": 1, "answer": "Yes."}]
    with pytest.raises(UserError, match="do not have 10 answers"):
        files.read()
    official, fallback = files.read(allow_fallback=True)
    assert (official.fallback, fallback.fallback) == (False, True)
    score = score_answer("yes", fallback)
    assert (score.vqa_correct, score.vqa_acc_score, score.fallback) == (1, 1.0, True)
    assert score_answer("yesterday", fallback).vqa_acc_score == 0.0  # no substring matching
    assert not score_answer("yes", official).fallback
    files.annotations[1]["answers"] = []
    with pytest.raises(UserError, match="do not have 10 answers"):
        files.read(allow_fallback=True)


def example(number: int, image: int) -> Example:
    return Example("x.png", "q?", "a", ("a",) * 10, question_id=number, image_id=image)


def test_examples_survive_writing_and_reading(tmp_path: Path) -> None:
    other = Example("y.png", "señal?", "ü", ("ü",) * 10, 2, 2, image_sha256="0", fallback=True)
    examples = [example(1, 1), other]
    write_examples(tmp_path / "e.jsonl", examples)
    assert read_examples(tmp_path / "e.jsonl") == examples


def test_images_inside_the_project_are_named_relative_to_it(tmp_path: Path) -> None:
    """So a project can be moved, while images outside it stay where they are."""
    root, moved = tmp_path / "project", tmp_path / "moved"
    inside, outside = (str(folder / "x.png") for folder in (root / "images", tmp_path / "coco"))
    examples = [replace(example(1, 1), image=inside), replace(example(2, 2), image=outside)]
    write_examples(root / "e.jsonl", examples, root)
    assert read_examples(root / "e.jsonl", root) == examples
    (root / "e.jsonl").rename(tmp_path / "e.jsonl")
    found = read_examples(tmp_path / "e.jsonl", moved)
    assert [e.image for e in found] == [str(moved / "images" / "x.png"), outside]


def test_a_damaged_example_names_its_line(tmp_path: Path) -> None:
    write_examples(tmp_path / "e.jsonl", [example(1, 1), example(2, 2)])
    text = (tmp_path / "e.jsonl").read_text()
    (tmp_path / "e.jsonl").write_text(text[:-30])
    with pytest.raises(UserError, match=r"e.jsonl, line 2"):
        read_examples(tmp_path / "e.jsonl")


def test_an_image_or_question_in_two_splits_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_ids occur in both train and test \(first: 7\)"):
        check_leakage({"train": [example(1, 7)], "test": [example(2, 7)]})
    with pytest.raises(UserError, match="question_ids occur in both train and dev"):
        check_leakage({"train": [example(1, 7)], "dev": [example(1, 8)]})
    check_leakage({"train": [example(1, 7)], "test": [example(2, 8)]})


def test_the_examples_change_when_an_image_changes(files: Files) -> None:
    before = files.read()
    draw(files.folder / "2.png", gray=1)
    after = files.read()
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_what_is_held_out_shares_no_image_with_what_stays() -> None:
    examples = [example(i, 100 + i // 3) for i in range(30)]
    kept, out = hold_out(examples, 7, np.random.default_rng(0))
    assert len(out) == 7
    assert not {e.image_id for e in kept} & {e.image_id for e in out}
    check_leakage({"train": kept, "dev": out})
    again = hold_out(examples, 7, np.random.default_rng(0))
    assert again == (kept, out)
    with pytest.raises(UserError, match="30 questions cannot be held out of 30"):
        hold_out(examples, 30, np.random.default_rng(0))


def test_training_loses_the_questions_about_images_of_other_splits() -> None:
    examples = [example(i, 100 + i // 3) for i in range(9)]
    kept = without_images_of(examples, [example(50, 101)])
    assert [e.image_id for e in kept] == [100] * 3 + [102] * 3


def test_a_sample_has_no_repeats_and_needs_enough_questions() -> None:
    examples = [example(i, i) for i in range(9)]
    drawn = sample(examples, 5, np.random.default_rng(0))
    assert len({e.question_id for e in drawn}) == 5
    assert sample(examples, None, np.random.default_rng(0)) == examples
    with pytest.raises(UserError, match="a sample of 10 questions was asked for"):
        sample(examples, 10, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["{image_id}/frame.png", "{image_id:03d}/{image_id}.png"])
def test_images_may_have_folders_of_their_own(files: Files, name: str) -> None:
    files.image_name = name
    for image in (1, 2):
        draw(files.folder / name.format(image_id=image), gray=image)
    assert [e.image for e in files.read()] == [
        str(files.folder / name.format(image_id=image)) for image in (1, 2)
    ]
    (files.folder / name.format(image_id=2)).unlink()
    with pytest.raises(UserError, match=r"1 images of .* are missing in .*\(first ids: 2\)"):
        files.read()


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_an_image_that_cannot_be_opened_is_refused_with_its_question(
    files: Files, damage: bytes | None
) -> None:
    path = files.folder / "2.png"
    path.write_bytes(path.read_bytes()[:50] if damage is None else damage)
    with pytest.raises(UserError, match=r"^question 2: image .*2\.png cannot be read"):
        files.read()


def test_images_that_are_counted_anew_in_every_split_are_told_apart(tmp_path: Path) -> None:
    """Ids of files prove nothing, contents do; ids that tell images apart are kept."""
    grays = {"test": (1, 2, 3), "train": (4, 5, 1)}
    splits = {
        split: [
            replace(example(10 * gray + len(split), number), image=str(tmp_path / f"{split}{gray}"))
            for number, gray in enumerate(row, start=1)
        ]
        for split, row in grays.items()
    }
    for split, row in grays.items():
        for gray in row:
            (tmp_path / f"{split}{gray}").write_bytes(draw(tmp_path / "a.bmp", gray))
    found = with_image_ids(splits)
    assert [e.image_id for e in found["test"]] == [1, 2, 3]
    assert [e.image_id for e in found["train"]] == [4, 5, 1]
    assert [e.image_id for e in without_images_of(found["train"], found["test"])] == [4, 5]
    assert with_image_ids(found) == found
    (tmp_path / "train4").unlink()
    with pytest.raises(UserError, match="train4 cannot be read"):
        with_image_ids(splits)


def test_one_image_under_two_ids_is_one_image(tmp_path: Path) -> None:
    rows = [replace(example(i, i), image=str(tmp_path / f"{i % 2}.png")) for i in range(1, 4)]
    for gray in range(2):
        draw(tmp_path / f"{gray}.png", gray)
    (found,) = with_image_ids({"train": rows}).values()
    assert [e.image_id for e in found] == [1, 2, 1]


def test_an_image_told_apart_from_one_with_the_largest_id_gets_a_free_one(tmp_path: Path) -> None:
    rows = []
    for number in (1, 2):
        draw(tmp_path / f"{number}.png", number)
        image = str(tmp_path / f"{number}.png")
        rows.append(Example(image, "q", "a", question_id=number, image_id=LARGEST_ID))
    found = with_image_ids({"test": rows})["test"]
    assert [example.image_id for example in found] == [LARGEST_ID, 1]
