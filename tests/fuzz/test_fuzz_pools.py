"""Damaged and foreign kept pools, and what tasks of lmms-eval hand over."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from doors import Bad, try_all
from texts import VALUES, damaged

from lever_plus.data.examples import Example
from lever_plus.data.pool_folder import FILE, PoolFolder
from lever_plus.hosts.lmms_eval import doc_to_messages
from tiny_world import World
from trained_selector import SHOTS, written_pool

EXAMPLES = [
    Example(f"images/{n}.png", f"question {n}?", f"answer {n}", ("a", "b"), n, n, f"{n:064x}")
    for n in range(1, 13)
]
STATEMENTS = (
    "CREATE TRIGGER t AFTER INSERT ON example BEGIN DELETE FROM example; END",
    "CREATE VIEW v AS SELECT * FROM example",
    "CREATE INDEX i ON example (question)",
    "CREATE TABLE other (a)",
    "ALTER TABLE example ADD COLUMN more TEXT",
    "ALTER TABLE example RENAME COLUMN question TO words",
    "ALTER TABLE example RENAME TO examples",
    "DROP TABLE example",
    "PRAGMA application_id = 1",
    "PRAGMA application_id = 0",
    *(
        f"UPDATE example SET {column} = {value} WHERE place = 3"
        for column in ("question_id", "image_id", "image", "question", "answer", "answers")
        for value in (
            "''",
            "'x'",
            "-1",
            "1.5",
            "9e999",
            "x'00ff'",
            "zeroblob(9)",
            "'[1, 2'",
            "'{}'",
        )
    ),
)


def test_pools_that_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    PoolFolder(folder).add(EXAMPLES)
    whole = (folder / FILE).read_bytes()
    before = PoolFolder(folder).read()

    def bad(name: str, content: bytes, statement: str = "") -> Bad:
        def run() -> None:
            (folder / FILE).write_bytes(content)
            if statement:
                with closing(sqlite3.connect(folder / FILE)) as connection, connection:
                    connection.execute(statement)
            try:
                found = PoolFolder(folder).read()
            finally:
                for left in folder.glob(f"{FILE}*"):
                    left.unlink()
            for example in found:
                assert all(isinstance(t, str) for t in (example.image, example.answer))
                assert example.question_id >= 0
            assert statement or found == before or len(found) < len(before)

        return Bad(name, run, (FILE,))

    def inputs() -> Iterator[Bad]:
        rng = random.Random(3)
        for statement in STATEMENTS:
            yield bad(statement, whole, statement)
        for name, content in damaged(whole[:200], rng, 80):
            if content:  # an empty file is an empty pool
                yield bad(name, content + whole[200:])

    try_all("pools that are kept", inputs())


def test_documents_of_lmms_eval(checkpoint: Path, world: World, tmp_path: Path) -> None:
    pool = written_pool(tmp_path / "pool.jsonl", world.splits["train"])
    query = world.splits["test"][0].query
    doc: dict[str, Any] = {"image": query.image, "question": query.question}
    settings: dict[str, Any] = {"checkpoint": str(checkpoint), "pool": str(pool), "shots": SHOTS}

    def bad(name: str, value: Any, *, of_doc: bool) -> Bad:
        document = {**doc, name: value} if of_doc else doc
        given = settings if of_doc else {**settings, name: value}

        def run() -> None:
            shots = given["shots"]
            turns = doc_to_messages(document, given)
            assert len(turns) == 2 * (2 if isinstance(shots, dict) else shots) + 1

        places = (name, str(value), "demonstrations", "is not a file")
        return Bad(f"{name}: {value!r}"[:200], run, places)

    def inputs() -> Iterator[Bad]:
        for value in VALUES:
            for name in doc:
                yield bad(name, value, of_doc=True)
            for name in (*settings, "price", "encoder", "instruction", "image", "more"):
                yield bad(name, value, of_doc=False)

    try_all("documents of lmms-eval", inputs())
