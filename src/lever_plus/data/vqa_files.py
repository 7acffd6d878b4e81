"""Reader for files in VQAv2 format: a questions JSON, an annotations JSON and a folder of images.

Format: https://visualqa.org/download.html. Strict on purpose: a question without its annotation,
an annotation without its question, an id used twice or a missing image stops the run before any
model is loaded, because a metric computed on mismatched files is a wrong number that looks right.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lever_plus.data.examples import Example, most_frequent_answer
from lever_plus.errors import UserError

SHOWN_OFFENDERS = 5


def read_vqa_files(
    questions: Path, annotations: Path, image_path: Callable[[int], Path], answers_per_question: int
) -> list[Example]:
    """Read one split.

    Args:
        questions: File with {"questions": [{"question_id", "image_id", "question"}, ...]}.
        annotations: File with {"annotations": [{"question_id", "image_id", "answers"}, ...]}.
        image_path: Maps an image id to the path of its file.
        answers_per_question: Human answers that every question must have (10 in VQAv2).

    Returns:
        The examples in the order of the question file.

    Raises:
        UserError: Files are missing, unreadable or do not match; the first offenders are named.
    """
    asked = _by_id(questions, _load(questions, "questions"))
    annotated = _by_id(annotations, _load(annotations, "annotations"))
    _refuse(asked.keys() - annotated.keys(), f"questions of {questions} have no annotation")
    _refuse(annotated.keys() - asked.keys(), f"annotations of {annotations} have no question")
    wrong = [i for i, a in annotated.items() if len(a["answers"]) != answers_per_question]
    _refuse(wrong, f"annotations of {annotations} do not have {answers_per_question} answers")
    moved = [i for i, q in asked.items() if q["image_id"] != annotated[i]["image_id"]]
    _refuse(moved, f"questions of {questions} and {annotations} name different images")
    images = {q["image_id"]: image_path(q["image_id"]) for q in asked.values()}
    _refuse([i for i, p in images.items() if not p.is_file()], f"images of {questions} are missing")
    return [_example(asked[i], annotated[i], images[asked[i]["image_id"]]) for i in asked]


def _example(question: dict[str, Any], annotation: dict[str, Any], image: Path) -> Example:
    answers = tuple(str(answer["answer"]) for answer in annotation["answers"])
    return Example(
        question_id=question["question_id"],
        image_id=question["image_id"],
        image=str(image),
        image_sha256=hashlib.sha256(image.read_bytes()).hexdigest(),
        question=question["question"],
        answers=answers,
        answer=most_frequent_answer(answers),
    )


def _load(path: Path, key: str) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing: point params.yaml `data` at your {key} file.")
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a VQAv2 {key} file: {error!r}.") from error
    return rows


def _by_id(path: Path, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    counts = Counter(row["question_id"] for row in rows)
    _refuse([i for i, n in counts.items() if n > 1], f"question ids occur twice in {path}")
    return {row["question_id"]: row for row in rows}


def _refuse(offenders: Iterable[int], what: str) -> None:
    ids = sorted(offenders)
    if ids:
        shown = ", ".join(map(str, ids[:SHOWN_OFFENDERS]))
        raise UserError(f"{len(ids)} {what} (first ids: {shown}). Mend the files and run again.")
