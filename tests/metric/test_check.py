"""`metric check` notices a metric that differs, and shows where the conventions part."""

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


def test_a_prediction_without_annotation_is_refused(tmp_path: Path) -> None:
    rows = [{"question_id": 9, "answer": "yes"}]
    with pytest.raises(UserError, match=r"1 of 1 predictions have no annotation .*first: \[9\]"):
        check.compare(write(tmp_path / "p.json", rows), annotations(tmp_path))


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not hold a list of objects"):
        check.compare(write(tmp_path / "p.json", [{"id": 1}]), annotations(tmp_path))
