"""History files: what is written is what is read, and damage is named."""

from pathlib import Path

import pytest

from lever_plus.errors import UserError
from lever_plus.tracking.history import History, Row, read_history


def test_rows_survive_and_are_handed_on(tmp_path: Path) -> None:
    seen: list[Row] = []
    with History(tmp_path / "run" / "history.jsonl", seen.append) as history:
        history.write({"step": 1, "loss": 0.1234567891234})
        history.write({"step": 2, "loss": 2.0})
    rows = read_history(tmp_path / "run" / "history.jsonl")
    assert rows == seen == [{"step": 1, "loss": 0.123456789}, {"step": 2, "loss": 2.0}]


def test_rows_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", lambda _: None)
    history.write({"step": 1})
    assert len(read_history(tmp_path / "history.jsonl")) == 1


def test_damage_and_absence_are_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with pytest.raises(UserError, match="is missing"):
        read_history(path)
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    with pytest.raises(UserError, match=r"history.jsonl, line 2 is not valid JSON.*dvc checkout"):
        read_history(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverges_is_stopped_by_name(value: float, tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl", lambda _: None)
    history.write({"step": 1, "loss": 0.5})
    with pytest.raises(UserError, match=r"history.jsonl: loss is (nan|inf) at step 2"):
        history.write({"step": 2, "loss": value})
    assert read_history(tmp_path / "history.jsonl") == [{"step": 1, "loss": 0.5}]
