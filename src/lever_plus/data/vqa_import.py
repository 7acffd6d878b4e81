"""Turns a user's own list into a split in VQAv2 format: questions, annotations and images."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.data.examples import SPLITS, Example, most_frequent_answer
from lever_plus.data.lists import read_list
from lever_plus.data.pool_files import with_numbered_images
from lever_plus.data.vqa_files import with_image_hashes
from lever_plus.errors import UserError
from lever_plus.files.writing import replacing_folders, write_json

QUESTIONS: Final = "questions.json"
ANNOTATIONS: Final = "annotations.json"
IMAGES: Final = "images"
HUMANS: Final = 10
"""How often the only answer of a question is written: VQA accuracy needs ten."""
IDS_OF_A_SPLIT: Final = 1_000_000_000
"""Range of ids of each split, so that no two overlap: row 3 of dev is question 2,000,000,003."""


class Imported(NamedTuple):
    """What was written: the number of questions and images, and the template of image names."""

    questions: int
    images: int
    image_name: str


def import_list(
    path: Path, split: str, folder: Path, images: Path, image_name: str | None = None
) -> Imported:
    """Write a list as a split that `read_vqa_files` reads.

    A single answer is written as ten equal ones; `answers` are written as they are. Images are
    linked where the disk allows it, else copied; an image that several files hold is written once.

    Args:
        path: The list, see `read_list`.
        split: One of `SPLITS`; ids of questions and images differ between splits.
        folder: Folder to make; it gets `QUESTIONS`, `ANNOTATIONS` and `IMAGES`.
        images: Folder that the paths of the images are relative to.
        image_name: Template of image file names, if rows give numbers of images; see `read_list`.

    Raises:
        UserError: The folder exists already, the list cannot be read, an image cannot be opened,
            or rows contradict each other; the file and the row are named.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already: remove it, or name another folder.")
    above = IDS_OF_A_SPLIT * (1 + SPLITS.index(split))
    listed = read_list(path, images, image_name, above=above)
    _check_questions(listed)
    places = list(listed)
    hashed = with_image_hashes(list(listed.values()), places)
    examples = with_numbered_images(hashed, above)
    _check_image_ids(dict(zip(places, examples, strict=True)))
    files = {example.image_id: Path(example.image) for example in examples}
    name = "{image_id}" + _common_ending(files.values())
    with replacing_folders([folder]) as (fresh,):
        (fresh / IMAGES).mkdir()
        for image_id, file in files.items():
            _place(file, fresh / IMAGES / name.format(image_id=image_id))
        for file_name, rows in _vqa(examples).items():
            write_json(fresh / file_name, rows, indent=None)
    return Imported(len(examples), len(files), name)


def _check_questions(listed: Mapping[str, Example]) -> None:
    """Refuse a question that occurs twice, and an answer that contradicts its `answers`."""
    first: dict[tuple[str, str], str] = {}
    for where, example in listed.items():
        other = first.setdefault((example.image, example.question), where)
        if other != where:
            raise UserError(
                f"{where} asks the same about the same image as {other}: leave one out, or write "
                "one row with `answers`, a list of what several people answered."
            )
        if example.answers and example.answer != most_frequent_answer(example.answers):
            raise UserError(
                f"{where}: answer is not the most frequent of answers, but only that one will be "
                "shown: leave answer out."
            )


def _check_image_ids(listed: Mapping[str, Example]) -> None:
    first: dict[int, tuple[str, str]] = {}
    for where, example in listed.items():
        other, content = first.setdefault(example.image_id, (where, example.image_sha256))
        if content != example.image_sha256:
            raise UserError(
                f"{where}: image_id {example.image_id} belongs to another image in {other}: give "
                "every image its own id, or none of them."
            )


def _common_ending(files: Iterable[Path]) -> str:
    """Return the suffix that all files have; "" if they differ, or it has strange characters."""
    endings = {file.suffix for file in files}
    ending = endings.pop() if len(endings) == 1 else ""
    return ending if ending[1:].isalnum() else ""


def _place(file: Path, there: Path) -> None:
    """Link a file, or copy it where it can't be linked: to another disk, or from another user."""
    with suppress(OSError):
        os.link(file.resolve(), there)
        return
    shutil.copyfile(file, there)


def _vqa(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the content of the questions file and of the annotations file."""
    questions, annotations = [], []
    for example in examples:
        ids = {"question_id": example.question_id, "image_id": example.image_id}
        questions.append({**ids, "question": example.question})
        said = example.answers or (example.answer,) * HUMANS
        answers = [{"answer_id": i, "answer": answer} for i, answer in enumerate(said, start=1)]
        annotations.append({**ids, "answers": answers})
    return {QUESTIONS: {"questions": questions}, ANNOTATIONS: {"annotations": annotations}}
