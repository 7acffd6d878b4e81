"""MLflow's stores, their addresses, and the files that are projected, all of them damaged."""

import json
import math
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from doors import Bad, try_all
from mlflow.entities import Metric
from mlflow.utils.validation import _validate_metric_name
from texts import changed, damaged, json_lines

from lever_plus.tracking.address import scheme, sqlite_file
from lever_plus.tracking.evaluations import read_ablations, read_evaluation, read_usage
from lever_plus.tracking.hashes import data_inputs, locked_outputs
from lever_plus.tracking.history import read_history
from lever_plus.tracking.opening import _check_file, _check_schema, _sqlite_schema

ROWS = [{"step": 0, "dev_reward": 0.5, "seed": 1}, {"step": 7, "kl": 0.25, "round": "a"}]
ACCURACY = {"method": "grpo", "accuracy": 0.5, "ci95": [0.4, 0.6], "seed_accuracies": [0.4, 0.6]}
DIFFERENCE = {"method": "grpo", "versus": "rce", "difference": 0.1, "ci95": [0.0, 0.2]}
SUMMARY = {
    "rows": [{**ACCURACY, "shots": 1}],
    "means": [ACCURACY],
    "differences": [{**DIFFERENCE, "shots": "mean"}, {**DIFFERENCE, "shots": 1}],
}
ABLATIONS = {
    "rows": [
        {
            **ACCURACY,
            "variant": "few",
            "versus": "default/rce",
            "difference": {"difference": 0.1, "ci95": [0.0, 0.2]},
        }
    ]
}
SCHEMES = (
    "",
    "foo",
    "file",
    "ftp",
    "mlflow",
    "sqlite",
    "sqlite+aiosqlite",
    "SQLITE",
    "redis",
    "ws",
)
PATHS = (
    *("", "/", "//", "///", ":memory:", "/:memory:", "///:memory:", "///a?b=c", "///a%41.db"),
    *("///file:x?uri=true", "host/x.db", "//host/x.db", "///\0", "///" + "x" * 5000, "//u:pw@h/x"),
)


def _taken(row: dict[str, Any]) -> None:
    """Prove that MLflow and its databases take a row."""
    assert 0 <= row["step"] < 2**63
    for key, value in row.items():
        assert Metric(key=key, value=0.0, timestamp=0, step=0)
        _validate_metric_name(key)
        assert isinstance(value, str) or math.isfinite(float(value))


def _as_numbers(content: Any) -> None:
    json.dumps(content, allow_nan=False)


def test_damaged_histories(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    rng = random.Random(1)
    inputs = [(name, content) for name, content in damaged(json_lines(ROWS), rng, 150)]
    for name, rows in changed(ROWS, rng, 150):
        inputs.append((name, json_lines(rows)))

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            for row in read_history(path):
                assert type(row["step"]) is int
                _taken(row)

        return Bad(name, run, (path.name,))

    for key, value in (
        *(("step", step) for step in (-1, 2**63, 10**30, True, 1.0)),
        *(("kl", 10**400), ("kl", -(10**400)), ("k" * 300, 1), ("kl\n", 1)),
        *((key, 1) for key in ("", "k?", "../x", "a//b", "/a", "a/..", "k\0", "é", "a/")),
    ):
        line = json.dumps({**ROWS[0], key: value}) + "\n"
        inputs.append((f"{key[:9]!r}: {value!r:.20}", line.encode()))
    try_all("histories", (bad(name, content) for name, content in inputs))


@pytest.mark.parametrize("kind", ["summary", "ablations", "usage"])
def test_damaged_metrics(kind: str, tmp_path: Path) -> None:
    content: Any = {"summary": SUMMARY, "ablations": ABLATIONS}.get(kind, {"a/b": 1.5, "c": 2})
    path = tmp_path / f"{kind}.json"
    rng = random.Random(2)
    inputs = [(name, data) for name, data in damaged(json.dumps(content).encode(), rng, 100)]
    inputs += [(name, json.dumps(each).encode()) for name, each in changed(content, rng, 150)]
    if kind == "summary":
        twice = {**SUMMARY, "rows": SUMMARY["rows"] * 2}
        inputs += [("a row twice", json.dumps(twice).encode())]
        for field, value in (("method", "a'b\"c"), ("method", "x" * 999), ("shots", 2**63)):
            other = {**SUMMARY, "rows": [{**SUMMARY["rows"][0], field: value}]}
            inputs.append((f"{field} {value!r:.20}", json.dumps(other).encode()))

    def bad(name: str, data: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(data)
            if kind == "usage":
                _as_numbers(read_usage(path))
                return
            found = read_evaluation(path) if kind == "summary" else read_ablations(path)
            for method in found.methods:
                values = found.values(method, None)
                _as_numbers(list(values.values()))
                for name, step in values:
                    _taken({name: 0.0, "step": step})

        return Bad(name, run, (path.name,))

    try_all(f"metrics for MLflow: {kind}", (bad(name, data) for name, data in inputs))


def test_damaged_lock_files(tmp_path: Path) -> None:
    """What DVC knows of the data is read for every run."""
    lock = b"stages:\n  rl_data:\n    outs:\n    - path: artifacts/rl_data\n      md5: abc.dir\n"
    (tmp_path / "dvc.yaml").write_text("stages: {grpo: {deps: [artifacts/rl_data, src/x.py]}}")
    path = tmp_path / "dvc.lock"
    rng = random.Random(3)

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            assert all(isinstance(each, str) for each in locked_outputs(tmp_path).values())
            assert len(data_inputs("grpo", 1, tmp_path)) <= 1

        return Bad(name, run, (path.name,))

    try_all("dvc.lock", (bad(name, content) for name, content in damaged(lock, rng, 200)))


def test_addresses_of_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made for them, and no password is shown."""
    monkeypatch.chdir(tmp_path)

    def bad(uri: str) -> Bad:
        def run() -> None:
            assert scheme(uri) == "sqlite"
            assert sqlite_file(uri).is_absolute()

        return Bad(repr(uri[:60]), run, ("MLFLOW_TRACKING_URI", "decode"))

    uris = [f"{kind}{sign}{path}" for kind in SCHEMES for sign in (":", "") for path in PATHS]
    try_all("tracking addresses", map(bad, uris), untouched=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_stores(tmp_path: Path, fresh_store: Path) -> None:
    """The files are no stores, another program's, or stores with their first pages damaged."""
    path = tmp_path / "mlflow.db"
    whole = fresh_store.read_bytes()
    rng = random.Random(4)
    head = [(name, content) for name, content in damaged(whole[:8192], rng, 90)]
    inputs = [(name, content + whole[len(content) :]) for name, content in head]
    inputs += [(f"cut off at {at}", whole[:at]) for at in (1, 15, 16, 99, 100, 4096, 40_000)]
    inputs += [("text", b"# notes"), ("png", b"\x89PNG\r\n\x1a\n" * 9), ("zero", bytes(9000))]

    def bad(name: str, content: bytes) -> Bad:
        def run() -> None:
            path.write_bytes(content)
            before = path.read_bytes()
            try:
                _open(path)
            finally:
                assert path.read_bytes() == before

        return Bad(name, run, (str(path),))

    for name, statements in FOREIGN.items():
        other = tmp_path / "other.db"
        other.unlink(missing_ok=True)
        with closing(sqlite3.connect(other)) as opened, opened:
            for statement in statements:
                opened.execute(statement)
        inputs.append((name, other.read_bytes()))
    try_all("MLflow stores", (bad(name, content) for name, content in inputs))


FOREIGN = {
    "answers": ["CREATE TABLE answers (k TEXT)"],
    "optuna": ["CREATE TABLE studies (a)", "CREATE TABLE alembic_version (version_num TEXT)"],
    "half made": ["CREATE TABLE experiments (a)", "CREATE TABLE runs (a)", "CREATE TABLE tags (a)"],
    "newer": [
        *(f"CREATE TABLE {name} (a)" for name in ("experiments", "runs", "metrics", "tags")),
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('ffffffffffff')",
    ],
}


def _open(path: Path) -> None:
    """Do what opening a store does before MLflow sees it."""
    from lever_plus.tracking.calls import ask

    _check_file(path)
    place = f"sqlite:///{path}"
    schema = ask(place, 10, _sqlite_schema, path)
    # If the damage is where opening the store does not read, all its tables are there.
    assert not _check_schema(place, "sqlite", schema) or len(schema.tables) > 60


@pytest.fixture(scope="module")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as it is made."""
    from lever_plus.tracking.opening import _make

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    _make(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return path
