"""Compares the metric with recorded results of the official script, and its three conventions.

The recorded results (vectors) were made by running the unmodified script, see their `source`. Tests
and `lever-plus metric check` compare with every one of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from lever_plus.data.examples import Id
from lever_plus.errors import UserError
from lever_plus.files.checking import STRICT, checked
from lever_plus.files.json_files import read_json, read_object
from lever_plus.metric.vqa import Convention, normalize_answer, vqa_accuracy

VECTORS: Final = Path(__file__).with_name("official_vectors.json")
CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)
FIELDS: Final[Mapping[Convention, str]] = {
    "official": "official_head",
    "pre2021": "official_pre2021",
}
HUMANS: Final = 10
SHOWN: Final = 5
ADVICE: Final = "give the results and the annotations of the same questions, in VQAv2 format"
USED: Final = ConfigDict(**{**STRICT, "extra": "ignore"})
"""Unknown fields are allowed: files in VQAv2 format have more than are used."""
Answered = TypeVar("Answered", "Prediction", "Annotation")


class Agreement(NamedTuple):
    """How many vectors agree, how many there are, and a sentence for each that does not agree."""

    agreeing: int
    total: int
    differences: list[str]


def read_vectors() -> dict[str, Any]:
    """Return {"normalise": [{"in", "out"}], "accuracy": [{"pred", "answers", ...}], ...}."""
    return read_object(VECTORS, "install lever-plus again")


def agreement() -> Agreement:
    """Compare this implementation with every recorded result of the official script."""
    vectors = read_vectors()
    results: list[tuple[str, object, object]] = [
        (v["in"], normalize_answer(v["in"]), v["out"]) for v in vectors["normalise"]
    ]
    for case in vectors["accuracy"]:
        answers = [record["answer"] for record in case["answers"]]
        for convention, field in FIELDS.items():
            score = round(100 * vqa_accuracy(case["pred"], answers, convention), 2)
            results.append((f"{case['name']} ({convention})", score, case[field]))
    differences = [
        f"{name!r}: {got!r} instead of {expected!r}"
        for name, got, expected in results
        if got != expected
    ]
    return Agreement(len(results) - len(differences), len(results), differences)


class Comparison(NamedTuple):
    """Mean accuracy of a prediction file under every convention.

    Attributes:
        accuracy: {convention: mean in [0, 1]}.
        n: Number of predictions.
        unanimous: Share of questions whose human answers are all identical. The official script
            does not normalise these; the conventions differ there.
    """

    accuracy: dict[Convention, float]
    n: int
    unanimous: float


class Prediction(BaseModel):
    """A predicted answer to a question; other fields of a results file are ignored."""

    model_config = USED
    question_id: Id
    answer: str


class Given(BaseModel):
    """A human answer."""

    model_config = USED
    answer: str


class Annotation(BaseModel):
    """The human answers to a question."""

    model_config = USED
    question_id: Id
    answers: tuple[Given, ...]


def compare(predictions: Path, annotations: Path) -> Comparison:
    """Score a file of predictions under all conventions.

    As in the official script, both files must be about exactly the same questions.

    Args:
        predictions: Results in VQAv2 format, [{"question_id": 1, "answer": "yes"}, ...].
        annotations: VQAv2 annotations of the same questions, with ten human answers each.

    Raises:
        UserError: A file is missing or has another format; or a question occurs twice, is in only
            one of the files, or does not have ten answers.
    """
    annotated = _annotations(annotations)
    answers = {row.question_id: [given.answer for given in row.answers] for row in annotated}
    odd = [i for i, humans in answers.items() if len(humans) != HUMANS]
    _refuse(odd, f"questions do not have {HUMANS} human answers in {annotations}")
    rows = _rows(Prediction, read_json(predictions, ADVICE), predictions)
    given = {row.question_id: row.answer for row in rows}
    _refuse(given.keys() - answers.keys(), f"predictions have no annotation in {annotations}")
    _refuse(answers.keys() - given.keys(), f"questions have no prediction in {predictions}")
    return Comparison(
        accuracy={c: _mean(given, answers, c) for c in CONVENTIONS},
        n=len(given),
        unanimous=sum(len(set(answers[i])) == 1 for i in given) / len(given),
    )


def _mean(
    predicted: Mapping[int, str], answers: Mapping[int, list[str]], convention: Convention
) -> float:
    scores = [vqa_accuracy(answer, answers[i], convention) for i, answer in predicted.items()]
    return sum(scores) / len(scores)


def _annotations(path: Path) -> list[Annotation]:
    content = read_object(path, ADVICE)
    if "annotations" not in content:
        raise UserError(f"{path} has no annotations: {ADVICE}.")
    return _rows(Annotation, content["annotations"], path)


def _rows(kind: type[Answered], content: Any, path: Path) -> list[Answered]:
    """Return the rows of a list: at least one, and no two for the same question."""
    if not isinstance(content, list) or not content:
        raise UserError(
            f"{path} must hold a list of objects with {', '.join(kind.model_fields)}, at least one."
        )
    rows = [_row(kind, row, f"{path}, entry {number}") for number, row in enumerate(content)]
    counts = Counter(row.question_id for row in rows)
    _refuse([i for i, count in counts.items() if count > 1], f"questions occur twice in {path}")
    return rows


def _row(kind: type[Answered], content: Any, where: str) -> Answered:
    identity = content.get("question_id") if isinstance(content, dict) else None
    whose = "" if identity is None else f" (question_id {str(identity)[:30]})"
    return checked(kind, content, f"{where}{whose}", ADVICE)


def _refuse(offenders: Iterable[int], what: str) -> None:
    ids = sorted(offenders)
    if ids:
        raise UserError(f"{len(ids)} {what} (first ids: {ids[:SHOWN]}): {ADVICE}.")
