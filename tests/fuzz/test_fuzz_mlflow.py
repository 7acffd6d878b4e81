"""Damaged requests to a selector that MLflow serves: its own kind of error, with a sentence."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from doors import Bad, try_all
from mlflow.exceptions import MlflowException
from texts import VALUES, damaged

from lever_plus.errors import UserError
from lever_plus.hosts.mlflow import Options, save_model
from tiny_world import World
from trained_selector import SHOTS


@pytest.fixture
def model(checkpoint: Path, world: World, tmp_path: Path) -> Any:
    save_model(tmp_path / "model", checkpoint, world.splits["train"], Options(shots=SHOTS))
    return mlflow.pyfunc.load_model(str(tmp_path / "model"))


def requests(world: World) -> Iterator[tuple[str, Any]]:
    """Yield what is wrong, and rows: every field with every value, and bytes that were changed."""
    query, pool = world.splits["test"][0], world.splits["train"][:4]
    shown = [{"image": e.image, "question": e.question, "answer": e.answer} for e in pool]
    row = {"image": query.image, "question": query.question, "pool": shown, "shots": 1}
    for name in row:
        yield f"without {name}", [{key: row[key] for key in row if key != name}]
        for value in VALUES:
            yield f"{name} is {value!r:.30}", [{**row, name: value}]
    for name in (*shown[0], "question_id"):
        for value in VALUES:
            yield (
                f"{name} of the pool is {value!r:.30}",
                [{**row, "pool": [{**shown[0], name: value}, *shown[1:]]}],
            )
    for value in VALUES:
        yield f"the row is {value!r:.30}", [value]
        yield f"another field is {value!r:.30}", [{**row, "other": value}]
    for what, content in damaged(json.dumps([row]).encode(), random.Random(1), 120):
        try:
            yield what, json.loads(content)
        except ValueError:
            continue


def test_rows_of_a_request(model: Any, world: World) -> None:
    def asking(rows: Any) -> None:
        try:
            reply = model.predict(rows)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise UserError(error.message) from error
        assert all(0 < len(row.demonstrations) <= SHOTS for row in reply)

    bad = [
        Bad(what, lambda rows=rows: asking(rows), ("",))  # type: ignore[misc]
        for what, rows in requests(world)
    ]
    counts = try_all("requests to MLflow's server", bad)
    assert counts["refused"] > 100
