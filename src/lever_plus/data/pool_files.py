"""Pools of a user's own: JSON lines of image, question and answer, or files in VQAv2 format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lever_plus.data.examples import LARGEST_ID, Example, fresh_ids, most_frequent_answer
from lever_plus.data.texts import is_plain
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.errors import UserError
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import read_lines

FIELDS = {"image", "question", "answer", "answers", "question_id", "image_id"}


def read_pool(path: str | Path) -> list[Example]:
    """Read the examples that a selector may choose from.

    A line is {"image": ..., "question": ..., "answer": ...}; instead of `answer` there may be
    `answers`, the human ones, whose most frequent is shown. `question_id` and `image_id` are
    optional: without them, lines are numbered from 1, and images by their content.

    Args:
        path: JSON lines; images are relative to its folder.

    Raises:
        UserError: The file is missing, an image cannot be opened, or a line is not an example; file
            and line are named.
    """
    path = Path(path)
    written = dict(read_lines(path, "name a file of JSON lines"))
    examples = [_example(line, path, number) for number, line in written.items()]
    if not examples:
        raise UserError(f"{path} holds no example: write one a line.")
    _check_ids(examples, path)
    places = [f"{path}, line {number}" for number in written]
    return _with_image_ids(with_image_hashes(examples, places))


def read_vqa_pool(
    questions: str | Path, annotations: str | Path, images: str | Path, image_name: str
) -> list[Example]:
    """Read a pool from files in VQAv2 format; arguments and errors as `read_vqa_files`.

    Any number of human answers will do: demonstrations are shown, not scored.
    """
    read = read_vqa_files(
        Path(questions), Path(annotations), Path(images), image_name, allow_fallback=True
    )
    return with_image_hashes(read)


def _example(line: bytes, path: Path, number: int) -> Example:
    where = f"{path}, line {number}"
    fields = parse_json(line, where, "write one object a line")
    if not isinstance(fields, dict):
        raise UserError(f"{where}: not an object with image, question and answer.")
    unknown = sorted(fields.keys() - FIELDS)
    if unknown:
        known = ", ".join(sorted(FIELDS))
        raise UserError(f"{where}: unknown field {unknown[0]}: there are {known}.")
    image = path.parent / _text(fields, "image", where)
    if not _is_file(image):
        raise UserError(f"{where}: image {image} is missing: name it relative to {path.parent}.")
    answers = _answers(fields, where)
    if "answer" in fields:
        shown = _text(fields, "answer", where)
    elif answers:
        shown = _text({"answers": most_frequent_answer(answers)}, "answers", where)
    else:
        raise UserError(f"{where}: answer is missing.")
    return Example(
        image=str(image),
        question=_text(fields, "question", where),
        answer=shown,
        answers=answers,
        question_id=_number(fields, "question_id", where, number),
        image_id=_number(fields, "image_id", where, 0),
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not is_plain(value):
        raise UserError(f"{where}: {name} is {_short(value)}, not a text.")
    return value


def _answers(fields: dict[str, Any], where: str) -> tuple[str, ...]:
    answers = fields.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise UserError(f"{where}: answers is not a list of texts.")
    return tuple(answers)


def _number(fields: dict[str, Any], name: str, where: str, default: int) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_ID:
        raise UserError(f"{where}: {name} is {_short(value)}, not a whole number from 0 up.")
    return value


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _check_ids(examples: Sequence[Example], path: Path) -> None:
    ids = Counter(example.question_id for example in examples)
    repeated = [number for number, count in ids.items() if count > 1]
    if repeated:
        raise UserError(
            f"{path}: question_id {repeated[0]} is there twice (lines without one have their "
            "number): give every line its own, or none."
        )


def _with_image_ids(examples: Sequence[Example]) -> list[Example]:
    """Number the images that have no id, equal ones alike."""
    ids = {example.image_sha256: example.image_id for example in examples if example.image_id}
    fresh = fresh_ids(ids.values())
    for example in examples:
        if example.image_sha256 not in ids:
            ids[example.image_sha256] = next(fresh)
    return [replace(e, image_id=e.image_id or ids[e.image_sha256]) for e in examples]
