"""What is no store, or not this project's, ends in a sentence and is not changed."""

import http.server
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lever_plus.errors import UserError
from lever_plus.tracking.calls import ask
from lever_plus.tracking.store import EXPERIMENT, Store
from servers import free_port


def opened(path: Path) -> Store:
    return Store(f"sqlite:///{path}")


def test_a_folder_a_text_and_a_closed_place_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all")
    (tmp_path / "folder.db").mkdir()
    for name, message in {
        "text.db": "not a SQLite",
        "folder.db": "not a file",
        "text.db/a": "a",
    }.items():
        with pytest.raises(UserError, match=message):
            opened(tmp_path / name)
    with pytest.raises(UserError, match="can't be made"):
        opened(Path("/proc/lever-plus.db"))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (["answers (key TEXT)"], "another program's"),
        (["studies (a)", "alembic_version (version_num TEXT)"], "another program's"),
        (["experiments (a)", "runs (a)", "metrics (a)", "tags (a)"], "half made"),
    ],
)
def test_other_databases_are_refused_and_never_altered(
    tables: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(UserError, match=message):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("version", "message"), [("ffff", "newer"), ("451aebb31d03", "older")])
def test_stores_of_other_versions_are_not_brought_to_this_one(
    version: str, message: str, client: Any, tmp_path: Path
) -> None:
    client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(UserError, match=message):
        opened(path)


def test_an_empty_file_and_what_a_killed_maker_left_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    (tmp_path / ".mlflow.db.making").write_bytes(b"half")
    (tmp_path / "mlflow.db-journal").write_bytes(b"of a file that is gone")
    assert opened(tmp_path / "mlflow.db").experiment
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mlflow.db", "mlflow.db.opening.lock"}


@pytest.mark.parametrize(("clashes", "made"), [(1, 2), (9, 3)])
def test_a_call_that_clashes_with_another_process_s_is_made_again(clashes: int, made: int) -> None:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= clashes:
            raise RuntimeError("(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key")
        return "done"

    if clashes < made:
        assert ask("store", 5, call) == "done"
    else:
        with pytest.raises(UserError, match="UNIQUE constraint failed"):
            ask("store", 5, call)
    assert len(calls) == made


def test_a_deleted_experiment_is_named_with_what_brings_it_back(client: Any) -> None:
    number = client.get_experiment_by_name(EXPERIMENT).experiment_id
    client.delete_experiment(number)
    with pytest.raises(UserError, match=f"restore --experiment-id {number}"):
        Store()


def test_a_copied_store_keeps_files_beside_itself(client: Any, tmp_path: Path) -> None:
    """MLflow writes absolute paths into its tables."""
    assert client
    (tmp_path / "a.txt").write_text("a")
    store = Store()
    run = store.create("a", {}, {})
    run.log_file(tmp_path / "a.txt")
    run.end()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "mlflow.db", copy)
    root = tmp_path / "mlruns"
    before = sorted(root.rglob("*"))
    again = opened(copy / "mlflow.db")
    fresh = again.create("b", {}, {})
    fresh.log_file(tmp_path / "a.txt")
    assert sorted(root.rglob("*")) == before
    assert len(list((copy / "mlruns").rglob("a.txt"))) == 1
    for each in again.runs(""):
        assert each.info.artifact_uri.startswith(f"{copy}/mlruns/")
    for each in store.runs(""):
        assert each.info.artifact_uri.startswith(f"{root}/")


def test_passwords_are_neither_shown_nor_logged(client: Any) -> None:
    run = Store().create("a", {}, {"vlm.url": "http://me:hunter2hunter2@host/v1", "seed": 1})
    assert client.get_run(run.id).data.params == {"vlm.url": "http://***@host/v1", "seed": "1"}
    for scheme in ("postgresql+psycopg", "postgresql", "http", "foo"):
        with pytest.raises(UserError) as error:
            Store(f"{scheme}://me:hunter2hunter2@127.0.0.1:{free_port()}/db")
        assert "hunter2" not in str(error.value)
        assert "127.0.0.1" in str(error.value)


class Page(http.server.BaseHTTPRequestHandler):
    """A server that is not MLflow's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>" + b"Welcome! " * 1000)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_another_server_is_named_in_one_sentence(page: str) -> None:
    with pytest.raises(UserError, match=page) as error:
        Store(page)
    assert len(str(error.value)) < 600
