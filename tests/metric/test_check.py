"""`metric check` notices a metric that differs, and shows where the conventions differ."""

import json
from pathlib import Path

import pytest

from lever_plus.errors import UserError
from lever_plus.metric import check


def test_every_vector_agrees() -> None:
    agreement = check.agreement()
    assert agreement.differences == []
    assert agreement.agreeing == agreement.total == 222 + 2 * 22


def test_a_metric_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "normalize_answer", str.lower)
    assert check.agreement().agreeing < check.agreement().total


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def annotations(folder: Path) -> Path:
    answers = {1: ["yes"] * 10, 2: ["2"] * 5 + ["two"] * 5}
    rows = [
        {"question_id": q, "answers": [{"answer": a} for a in given]}
        for q, given in answers.items()
    ]
    return write(folder / "annotations.json", {"annotations": rows})


def test_a_prediction_file_is_scored_under_all_conventions(tmp_path: Path) -> None:
    """Ten identical answers are not normalised by the official script: "Yes" scores 0 there."""
    rows = [{"question_id": 1, "answer": "Yes"}, {"question_id": 2, "answer": "two"}]
    found = check.compare(write(tmp_path / "p.json", rows), annotations(tmp_path))
    assert found.accuracy == {"official": 0.5, "pre2021": 1.0, "community": 1.0}
    assert (found.n, found.unanimous) == (2, 0.5)


YES = {"question_id": 1, "answer": "yes"}
TWO = {"question_id": 2, "answer": "two"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [YES, TWO, {"question_id": 9, "answer": "x"}],
            r"predictions have no annotation .*\[9\]",
        ),
        ([YES], r"1 questions have no prediction .*p\.json \(first ids: \[2\]\)"),
        ([YES, YES, YES, TWO], r"1 questions occur twice .*p\.json \(first ids: \[1\]\)"),
        ([{"id": 1}], r"p\.json, entry 0: question_id is missing"),
        ([YES, {**TWO, "answer": None}], r"p\.json, entry 1 \(question_id 2\): answer: "),
        ([YES, {**TWO, "question_id": True}], "entry 1 .*question_id: .*not True"),
        ([YES, {**TWO, "question_id": 2.0}], "entry 1 .*question_id: .*not 2.0"),
        ([], r"p\.json must hold a list of objects with question_id, answer"),
        ({"annotations": [YES]}, r"p\.json must hold a list of objects"),
        (None, r"p\.json must hold a list of objects"),
    ],
)
def test_predictions_must_be_those_of_the_annotated_questions(
    tmp_path: Path, rows: object, message: str
) -> None:
    """The official script asserts this: counting a question twice would give another number."""
    with pytest.raises(UserError, match=message):
        check.compare(write(tmp_path / "p.json", rows), annotations(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [{"answer": "yes"}]}, r"1 questions do not have 10 human answers .*\[2\]"),
        ({"answers": [{"answer": 2}] * 10}, r"entry 1 \(question_id 2\): answers.0.answer"),
        ({"answers": None}, r"entry 1 \(question_id 2\): answers"),
        ({"question_id": 1}, r"1 questions occur twice in .*annotations"),
        ({"question_id": "2"}, "entry 1 .*question_id: .*not '2'"),
    ],
)
def test_annotations_that_are_none_are_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = annotations(tmp_path)
    rows = json.loads(path.read_text())["annotations"]
    rows[1] |= change
    write(path, {"annotations": rows})
    with pytest.raises(UserError, match=message):
        check.compare(write(tmp_path / "p.json", [YES, TWO]), path)


def test_an_empty_prediction_is_right_where_the_human_answers_are_empty_words(
    tmp_path: Path,
) -> None:
    """The official script does the same; the metric is not corrected here."""
    answers = [{"answer": "a"}] * 5 + [{"answer": "the"}] * 5
    rows = [{"question_id": 1, "answers": answers, "question_type": None}]
    path = write(tmp_path / "a.json", {"annotations": rows, "info": 5})
    found = check.compare(write(tmp_path / "p.json", [{"question_id": 1, "answer": ""}]), path)
    assert found.accuracy == {"official": 1.0, "pre2021": 0.0, "community": 1.0}
