"""Reads files in VQAv2 format: a questions JSON, an annotations JSON and a folder of images.

Format: https://visualqa.org/download.html; OK-VQA has the same. Strict on purpose: a question
without an annotation, an annotation without a question, an id that is used twice or a missing image
stops the run before any model is loaded, because a metric computed on mismatched files is a wrong
number that looks right. Only the fields that are needed are decoded, so that the 444 thousand
questions of VQAv2's training split fit into a laptop's memory.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec
from tqdm import tqdm

from lever_plus.data.examples import LARGEST_ID, Example, most_frequent_answer
from lever_plus.data.images import opened_sha256
from lever_plus.data.texts import is_plain
from lever_plus.errors import UserError
from lever_plus.files.json_files import parse_json
from lever_plus.files.names import check_image_name
from lever_plus.files.reading import read_bytes

SHOWN_OFFENDERS = 5
READERS = 4
ESCAPED: Final = re.compile(rb"\\u00(?:5f|[46][1-9a-f]|[57][0-9a])", re.IGNORECASE)
"""An escaped ASCII letter: with it, one key can be spelled in two ways."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
Id = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ID)]


class Question(msgspec.Struct, gc=False):
    """A question as it is in its file."""

    question_id: Id
    image_id: Id
    question: str


class Answer(msgspec.Struct, gc=False):
    """One human answer."""

    answer: str


class Annotation(msgspec.Struct, gc=False):
    """The human answers to a question."""

    question_id: Id
    image_id: Id
    answers: list[Answer]


class QuestionsFile(msgspec.Struct):
    """The questions JSON."""

    KEYS: ClassVar = ("question_id", "image_id", "question")
    questions: list[Question]


class AnnotationsFile(msgspec.Struct):
    """The annotations JSON."""

    KEYS: ClassVar = ("question_id", "image_id", "answers")
    annotations: list[Annotation]


File = TypeVar("File", QuestionsFile, AnnotationsFile)
Row = TypeVar("Row", Question, Annotation)


def read_vqa_files(
    questions: Path,
    annotations: Path,
    images: Path,
    image_name: str,
    *,
    answers_per_question: int = 10,
    allow_fallback: bool = False,
) -> list[Example]:
    """Read one split; `with_image_hashes` completes the examples that are used.

    Args:
        questions: File with {"questions": [{"question_id", "image_id", "question"}, ...]}.
        annotations: File with {"annotations": [{"question_id", "image_id", "answers"}, ...]}.
        images: Folder of the images.
        image_name: Template of image file names, such as "COCO_val2014_{image_id:012d}.jpg"; see
            `check_image_name`.
        answers_per_question: Number of human answers that every question must have (10 in VQAv2).
        allow_fallback: Accept questions with another number of answers (at least one), and mark
            them (`Example.fallback`).

    Returns:
        The examples in the order of the question file.

    Raises:
        UserError: Files are missing, can't be read or do not match; the first offending ids are
            named.
    """
    check_image_name(image_name, "the images of the questions:")
    asked = _by_id(questions, load(questions, QuestionsFile, "questions").questions)
    annotated = _by_id(annotations, load(annotations, AnnotationsFile, "annotations").annotations)
    if not asked:
        raise UserError(f"{questions} holds no question: name the file that has them.")
    _refuse(asked.keys() - annotated.keys(), f"questions of {questions} have no annotation")
    _refuse(annotated.keys() - asked.keys(), f"annotations of {annotations} have no question")
    odd = {i for i, a in annotated.items() if len(a.answers) != answers_per_question}
    _refuse(
        {i for i in odd if not (allow_fallback and annotated[i].answers)},
        f"annotations of {annotations} do not have {answers_per_question} answers",
    )
    moved = [i for i, q in asked.items() if q.image_id != annotated[i].image_id]
    _refuse(moved, f"questions of {questions} and {annotations} name different images")
    blank = [i for i, q in asked.items() if not is_plain(q.question)]
    _refuse(blank, f"questions of {questions} are empty or hold control characters")
    shown = {
        i: most_frequent_answer([a.answer for a in rows.answers]) for i, rows in annotated.items()
    }
    unshown = [i for i, answer in shown.items() if not is_plain(answer)]
    _refuse(unshown, f"most frequent answers in {annotations} are empty or hold control characters")
    names = {q.image_id: image_name.format(image_id=q.image_id) for q in asked.values()}
    there = _file_names(images, {Path(name).parent for name in names.values()})
    _refuse(
        [i for i, name in names.items() if name not in there],
        f"images of {questions} are missing in {images}, where they would be named {image_name}",
    )
    return [
        _example(q, annotated[i], shown[i], str(images / names[q.image_id]), fallback=i in odd)
        for i, q in asked.items()
    ]


def with_image_hashes(
    examples: Sequence[Example], places: Sequence[str] | None = None
) -> list[Example]:
    """Return the examples with the hashes of their images, each of which is opened once.

    Args:
        examples: The examples.
        places: Where each is written ("FILE, line 3"), for errors; None: errors give question ids.

    Raises:
        UserError: Images cannot be opened; the first is named, with its place.
    """
    users: dict[str, int] = {}
    for number, example in enumerate(examples):
        users.setdefault(example.image, number)
    with ThreadPoolExecutor(READERS) as readers:
        opened = readers.map(_hash_or_error, users)
        bar = tqdm(opened, "open images", len(users), leave=False, disable=None)
        hashes = dict(zip(users, bar, strict=True))
    bad = [(image, found) for image, found in hashes.items() if isinstance(found, UserError)]
    if bad:
        image, error = bad[0]
        user = users[image]
        place = places[user] if places else f"question {examples[user].question_id}"
        others = f" {len(bad) - 1} other images can't be opened, either." if len(bad) > 1 else ""
        raise UserError(f"{place}: {error}{others}") from error
    return [replace(example, image_sha256=str(hashes[example.image])) for example in examples]


def _hash_or_error(path: str) -> str | UserError:
    try:
        return opened_sha256(path)
    except UserError as error:
        return error


def _example(
    question: Question, annotation: Annotation, shown: str, image: str, *, fallback: bool
) -> Example:
    return Example(
        question_id=question.question_id,
        image_id=question.image_id,
        image=image,
        image_sha256="",
        question=question.question,
        answers=tuple(answer.answer for answer in annotation.answers),
        answer=shown,
        fallback=fallback,
    )


def load(path: Path, kind: type[File], key: str) -> File:
    """Return what a file in VQAv2 format holds; fields that are not needed are ignored.

    Args:
        path: The file.
        kind: What it must hold.
        key: Name of its list: "questions" or "annotations".

    Raises:
        UserError: It is missing, or a field that is needed is missing, has another type or is there
            twice; the place is named, with the question's id if it has one.
    """
    advice = f"point data.source in params.yaml at your {key} file"
    content = read_bytes(path, advice).removeprefix(BYTE_ORDER_MARK)
    try:
        found = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a VQAv2 {key} file: {error}{_whose(str(error), content, key)}. Correct "
            "it."
        ) from error
    # Of equal keys, the decoder silently takes the last. So if there are more keys than values that
    # were found, the file is parsed again, strictly.
    rows = getattr(found, key)
    values = {key: 1, **dict.fromkeys(kind.KEYS, len(rows))}
    if kind is AnnotationsFile:
        values["answer"] = sum(len(row.answers) for row in rows)
    counted = all(_keys(name, content, count) == count for name, count in values.items())
    if not counted or ESCAPED.search(content):
        parse_json(content, str(path), "correct it")
    return found


def _keys(name: str, content: bytes, expected: int) -> int:
    """Return how often a name is a key; texts that are not keys are told apart if needed."""
    quoted = f'"{name}"'.encode()
    if content.count(quoted) == expected:
        return expected
    return sum(1 for _ in re.finditer(quoted + rb"\s*:", content))


def _whose(message: str, content: bytes, key: str) -> str:
    """Return ", question_id ..." for an error that gives a row by its number, else ""."""
    number = re.search(rf"\$\.{key}\[(\d+)\]", message)
    if number is None:
        return ""
    try:
        rows = msgspec.json.decode(content, type=dict[str, msgspec.Raw])[key]
        row = msgspec.json.decode(rows, type=list[msgspec.Raw])[int(number[1])]
        return f", question_id {msgspec.json.decode(row)['question_id']!r}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return ""


def _by_id(path: Path, rows: list[Row]) -> dict[int, Row]:
    counts = Counter(row.question_id for row in rows)
    _refuse([i for i, n in counts.items() if n > 1], f"question ids occur twice in {path}")
    return {row.question_id: row for row in rows}


def _file_names(folder: Path, parents: Iterable[Path]) -> set[str]:
    """Return the names of the files in `parents`, folders inside `folder`, relative to it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: point data.source at your folder of images.")
    names = set()
    for parent in parents:
        # Each folder is listed once: asking for every image is slow on a network disk.
        try:
            with os.scandir(folder / parent) as entries:
                names |= {(parent / entry.name).as_posix() for entry in entries}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            where = folder / parent
            raise UserError(
                f"{where} can't be read ({error.strerror}): allow this user to list its files."
            ) from error
    return names


def _refuse(offenders: Iterable[int], what: str) -> None:
    ids = sorted(offenders)
    if ids:
        shown = ", ".join(map(str, ids[:SHOWN_OFFENDERS]))
        raise UserError(f"{len(ids)} {what} (first ids: {shown}). Correct the files and run again.")
