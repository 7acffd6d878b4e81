"""Proof of agreement with the official script, and one prediction file under every convention.

The vectors were made by running the unmodified script (see their `source`); tests and
`lever-plus metric check` compare with every one of them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from lever_plus.errors import UserError
from lever_plus.metric.vqa import Convention, normalize_answer, vqa_accuracy

VECTORS: Final = Path(__file__).with_name("official_vectors.json")
CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)
FIELDS: Final[Mapping[Convention, str]] = {
    "official": "official_head",
    "pre2021": "official_pre2021",
}


class Agreement(NamedTuple):
    """How many vectors agree, of how many, and what does not."""

    agreeing: int
    total: int
    differences: list[str]


def read_vectors() -> dict[str, Any]:
    """Return {"normalise": [{"in", "out"}], "accuracy": [{"pred", "answers", ...}], ...}."""
    vectors: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return vectors


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
    """Mean accuracy of a prediction file under every convention, and where they part.

    accuracy: {convention: mean in [0, 1]}; n: predictions; unanimous: share of questions whose
    human answers are all identical, which the official script does not normalise.
    """

    accuracy: dict[Convention, float]
    n: int
    unanimous: float


def compare(predictions: Path, annotations: Path) -> Comparison:
    """Score a file of predictions under all conventions.

    Args:
        predictions: Results in VQAv2 format, [{"question_id": 1, "answer": "yes"}, ...].
        annotations: VQAv2 annotations that hold at least these questions.

    Raises:
        UserError: A file is missing or has another format, or a prediction has no annotation.
    """
    answers = {
        row["question_id"]: [given["answer"] for given in row["answers"]]
        for row in _rows(annotations, "annotations")
    }
    rows = _rows(predictions, None)
    unknown = [row["question_id"] for row in rows if row["question_id"] not in answers]
    if unknown or not rows:
        raise UserError(
            f"{predictions}: {len(unknown)} of {len(rows)} predictions have no annotation in "
            f"{annotations} (first: {unknown[:5]}). Use the annotations of the same questions."
        )
    return Comparison(
        accuracy={c: _mean(rows, answers, c) for c in CONVENTIONS},
        n=len(rows),
        unanimous=sum(len(set(answers[row["question_id"]])) == 1 for row in rows) / len(rows),
    )


def _mean(
    rows: Sequence[Mapping[str, Any]], answers: Mapping[int, list[str]], convention: Convention
) -> float:
    scores = [vqa_accuracy(row["answer"], answers[row["question_id"]], convention) for row in rows]
    return sum(scores) / len(scores)


def _rows(path: Path, key: str | None) -> list[dict[str, Any]]:
    needed = ("question_id", "answers" if key else "answer")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = content[key] if key else content
        for row in rows:
            if not all(name in row for name in needed):
                raise KeyError(f"{needed} in {row}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"annotations with {needed}" if key else f"a list of objects with {needed}"
        raise UserError(f"{path} does not hold {what}: {error}.") from error
    return rows
