"""Reads a user's own lists of examples: JSON lines, a JSON list, or CSV with named columns.

Strict on purpose, like the reader of files in VQAv2 format: a row without all that an example
needs, or with something that would not be read, is an error that names the row.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.data.examples import LARGEST_ID, Example, most_frequent_answer
from lever_plus.data.texts import is_plain
from lever_plus.errors import UserError
from lever_plus.files.json_files import parse_json, read_json
from lever_plus.files.names import check_image_name
from lever_plus.files.reading import check_file, read_lines, read_text

IDS: Final = ("question_id", "image_id")
FIELDS: Final = frozenset({"image", "question", "answer", "answers", *IDS})
COMPUTED: Final = frozenset({"fallback", "image_sha256"})
"""Fields that the pipeline's own examples have, too: they are computed again, not read."""
ORDER: Final = ("question", "answer", "image")
"""What the values of a row mean that is itself a JSON list."""
ADVICE: Final = "name a file of JSON lines, a JSON list (.json) or CSV with named columns (.csv)"
LONGEST_NUMBER: Final = len(str(LARGEST_ID))


class _Row(NamedTuple):
    """A row as it is written.

    Attributes:
        number: Its first line, or its place in a JSON list, from 1.
        where: The same for an error: "FILE, line 3".
        fields: What it holds.
    """

    number: int
    where: str
    fields: Any


def read_list(
    path: Path, images: Path, image_name: str | None = None, *, above: int = 0
) -> dict[str, Example]:
    """Read a list of examples; `with_image_hashes` completes them.

    A row has `image`, `question` and `answer`. In place of `answer` it may have `answers`, the
    human answers, of which the most frequent is shown. `question_id` and `image_id` are optional.
    In JSON a row is an object, or a list of question, answer and image in this order.

    Args:
        path: CSV if its name ends in .csv, a JSON list if it ends in .json, else JSON lines.
        images: Folder that the paths of the images are relative to.
        image_name: Template of image file names, if rows give numbers of images instead of files;
            see `check_image_name`.
        above: Added to a row's number to make the id of a question that has none.

    Returns:
        {"FILE, line 3": example}, in the order of the file. A question without an id has the number
        of its row (plus `above`) as its id, and an image without an id has 0.

    Raises:
        UserError: The file is missing, or a row is not an example; the file and the row are named.
    """
    if image_name is not None:
        check_image_name(image_name, f"the images of {path}:")
    rows = (row._replace(number=above + row.number) for row in _rows(path))
    examples = {row.where: _example(row, images, image_name) for row in rows}
    if not examples:
        raise UserError(f"{path} holds no example: write one per line.")
    _check_ids(list(examples.values()), path)
    return examples


def _rows(path: Path) -> Iterator[_Row]:
    check_file(path, ADVICE)
    match path.suffix.lower():
        case ".csv":
            yield from _csv_rows(path)
        case ".json":
            rows = read_json(path, "write one list; one object per line is JSON lines (.jsonl)")
            if not isinstance(rows, list):
                raise UserError(f"{path} does not hold a list: {ADVICE}.")
            for number, row in enumerate(rows, start=1):
                yield _Row(number, f"{path}, item {number}", _named(row))
        case _:
            for number, line in read_lines(path, ADVICE):
                where = f"{path}, line {number}"
                yield _Row(
                    number, where, _named(parse_json(line, where, "write one object per line"))
                )


def _named(row: Any) -> Any:
    """Return a row of JSON as an object, if it is a list of the values in `ORDER`."""
    if isinstance(row, list) and len(row) == len(ORDER):
        return dict(zip(ORDER, row, strict=True))
    return row


def _csv_rows(path: Path) -> Iterator[_Row]:
    reader = csv.reader(StringIO(read_text(path, ADVICE), newline=""), strict=True)
    columns: list[str] = []
    line = 1
    try:
        for cells in reader:
            number, line = line, reader.line_num + 1
            where = f"{path}, line {number}"
            if not cells:
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                if len(set(columns)) < len(columns):
                    raise UserError(f"{where}: two columns have the same name: rename one.")
                continue
            if len(cells) != len(columns):
                raise UserError(
                    f"{where}: {len(cells)} cells, but there are {len(columns)} columns: put cells "
                    'that hold a comma in quotes ("...").'
                )
            texts = dict(zip(columns, cells, strict=True))
            ids = {name: _whole(texts[name]) for name in IDS if name in texts}
            yield _Row(number, where, texts | ids)
    except csv.Error as error:
        raise UserError(f"{path}, line {line} is not valid CSV ({error}): correct it.") from error


def _whole(text: Any) -> Any:
    """Return a text of digits as a number; anything else unchanged, for `_number` to refuse."""
    digits = isinstance(text, str) and text.isascii() and text.isdecimal()
    return int(text) if digits and len(text) <= LONGEST_NUMBER else text


def _example(row: _Row, images: Path, image_name: str | None) -> Example:
    number, where, fields = row
    if not isinstance(fields, dict):
        raise UserError(f"{where}: not an object with image, question and answer.")
    unknown = sorted(fields.keys() - FIELDS - COMPUTED)
    if unknown:
        known = ", ".join(sorted(FIELDS))
        raise UserError(f"{where}: unknown field {unknown[0]}: the fields are {known}.")
    if image_name is None:
        name = _text(fields, "image", where)
    else:
        whole = {"image": _whole(fields.get("image"))}
        name = image_name.format(image_id=_number(whole, "image", where))
    image = images / name
    if not _is_file(image):
        raise UserError(f"{where}: image {image} is missing: write its path relative to {images}.")
    answers = _answers(fields, where)
    if "answer" in fields:
        shown = _text(fields, "answer", where)
    elif answers:
        shown = _text({"answers": most_frequent_answer(answers)}, "answers", where)
    else:
        raise UserError(f"{where}: answer is missing: add it.")
    return Example(
        image=str(image),
        question=_text(fields, "question", where),
        answer=shown,
        answers=answers,
        question_id=_number({"question_id": number} | fields, "question_id", where),
        image_id=_number({"image_id": 0} | fields, "image_id", where),
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _text(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if name not in fields:
        raise UserError(f"{where}: {name} is missing: add it.")
    if not isinstance(value, str) or not is_plain(value):
        raise UserError(
            f"{where}: {name} is {_short(value)}: write a text with visible characters and no "
            "control characters."
        )
    return value


def _answers(fields: dict[str, Any], where: str) -> tuple[str, ...]:
    answers = fields.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise UserError(f"{where}: answers is not a list of texts.")
    return tuple(answers)


def _number(fields: dict[str, Any], name: str, where: str) -> int:
    value = fields.get(name)
    if value is None:
        raise UserError(f"{where}: {name} is missing: add it.")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_ID:
        raise UserError(f"{where}: {name} is {_short(value)}, not a whole number from 0 up.")
    return value


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _check_ids(examples: list[Example], path: Path) -> None:
    ids = Counter(example.question_id for example in examples)
    repeated = [number for number, count in ids.items() if count > 1]
    if repeated:
        raise UserError(
            f"{path}: question_id {repeated[0]} occurs twice (the id of a row without one is its "
            "number): give every row its own id, or none of them."
        )
