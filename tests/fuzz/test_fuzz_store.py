"""Other databases, damaged and made-up answer stores: refused by name, and never changed."""

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from doors import Bad, try_all
from texts import VALUES, changed, damaged

from lever_plus.errors import UserError
from lever_plus.vlm.store.answers import Store
from lever_plus.vlm.store.merging import merge
from lever_plus.vlm.store.schema import APPLICATION, TABLES
from vlm.test_store import IDENTITY

KEYS = [bytes([number]) * 16 for number in range(20)]
TEXTS = [(key, f"answer {key[0]}") for key in KEYS[:15]]
NUMBERS = [(key, -key[0] / 7) for key in KEYS[15:]]
FOREIGN = (
    "CREATE TABLE experiments (id INTEGER PRIMARY KEY)",
    "CREATE TABLE answer (key BLOB PRIMARY KEY)",
    "CREATE VIEW answer AS SELECT 1 AS key",
    "CREATE TABLE vlm (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE)",
    "PRAGMA user_version = 7; CREATE TABLE vlm (id)",
    "PRAGMA user_version = 7; CREATE TABLE runs (id)",
    "PRAGMA application_id = 252006674",
    "PRAGMA application_id = -1; CREATE TABLE a (b)",
    *TABLES.values(),
)
MORE = (
    "CREATE TRIGGER t AFTER INSERT ON answer BEGIN DELETE FROM answer; END",
    "CREATE VIEW v AS SELECT * FROM answer",
    "CREATE INDEX i ON answer (text)",
    "CREATE TABLE other (a)",
    "ALTER TABLE answer ADD COLUMN more TEXT",
    "ALTER TABLE answer RENAME COLUMN text TO words",
    "DROP TABLE segment",
    "DROP TABLE answer",
    "ALTER TABLE vlm RENAME TO vlms",
    "PRAGMA user_version = 2",
    "PRAGMA user_version = -1",
    "PRAGMA application_id = 1",
    "UPDATE answer SET key = 'text' WHERE key = (SELECT MIN(key) FROM answer)",
    "UPDATE answer SET key = zeroblob(17) WHERE key = (SELECT MAX(key) FROM answer)",
    "UPDATE answer SET text = x'ff00' WHERE text IS NOT NULL",
    "UPDATE answer SET text = CAST(x'ff41' AS TEXT) WHERE text IS NOT NULL",
    "UPDATE answer SET text = NULL",
    "UPDATE answer SET log_likelihood = NULL",
    "UPDATE answer SET log_likelihood = 9e999 WHERE text IS NULL",
    "UPDATE answer SET log_likelihood = -9e999 WHERE text IS NULL",
    "UPDATE answer SET log_likelihood = 0.5 WHERE text IS NULL",
    "UPDATE answer SET log_likelihood = 'low' WHERE text IS NULL",
    "UPDATE answer SET log_likelihood = x'00' WHERE text IS NULL",
    "UPDATE answer SET log_likelihood = -1.0",
    "UPDATE answer SET vlm = 99",
    "UPDATE answer SET vlm = 'm'",
    "UPDATE vlm SET identity = 5",
    "UPDATE vlm SET identity = x'7b7d'",
    "UPDATE vlm SET identity = char(27) || '[2J'",
    "INSERT INTO vlm (identity) VALUES ('{}')",
    "UPDATE answer SET text = printf('%.*c', 2000000, 'x') WHERE text IS NOT NULL",
    "UPDATE answer SET text = text || '!' WHERE text IS NOT NULL",
    "UPDATE answer SET log_likelihood = log_likelihood - 1 WHERE text IS NULL",
)
"""What no store holds, or what differs from the store that it is merged into."""


def make(path: Path, *statements: str) -> Path:
    """Make a database, or change one."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.executescript(statement)
        connection.commit()
    return path


def fill(path: Path) -> Path:
    """Make a store of fifteen answers and five likelihoods."""
    store = Store(path)
    store.put("answer", IDENTITY, TEXTS)
    store.put("log_likelihood", IDENTITY, NUMBERS)
    store.close()
    return path


def contents(path: Path) -> list[tuple[object, ...]]:
    """Return what a store was made for, and all its answers."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(
            "SELECT identity, key, text, log_likelihood FROM answer JOIN vlm ON vlm.id = vlm "
            "WHERE vlm.id = 1 ORDER BY key"
        ).fetchall()


def files(place: Path, whole: Path, rng: random.Random) -> Iterator[tuple[str, Path]]:
    """Yield (what is wrong, file): other databases, changed stores, damaged ones."""
    number = 0

    def fresh() -> Path:
        nonlocal number
        number += 1
        return place / f"bad{number}.sqlite"

    for statement in FOREIGN:
        yield statement, make(fresh(), statement)
    for statement in MORE:
        yield statement, make(Path(shutil.copy(whole, fresh())), statement)
    for name, identity in changed(dict(IDENTITY), rng, 25):
        path = Path(shutil.copy(whole, fresh()))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE vlm SET identity = ?", (json.dumps(identity),))
            connection.commit()
        yield f"identity: {name}", path
    for value in VALUES:
        path = fresh()
        path.write_text(json.dumps(value), encoding="utf-8")
        yield f"JSON {value!r:.20}", path
    for name, content in damaged(whole.read_bytes(), rng, 50):
        path = fresh()
        path.write_bytes(content)
        yield name, path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return fill(tmp_path / "whole.sqlite")


def test_bad_stores_are_not_merged(whole: Path, tmp_path: Path) -> None:
    """Neither the source nor its folder changes; what is taken is what a store would hold."""
    place, into = tmp_path / "sources", tmp_path / "into.sqlite"
    place.mkdir()
    before = contents(whole)

    def bad(name: str, path: Path) -> Bad:
        content = path.read_bytes()

        def run() -> None:
            shutil.copy(whole, into)
            store = Store(into)
            try:
                merge(store, path)
                assert contents(into)[: len(before)] == before
            except UserError:
                assert contents(into) == before
                raise
            finally:
                store.close()
                assert path.read_bytes() == content
                assert [each.name for each in place.glob(f"{path.name}*")] == [path.name]

        return Bad(name, run, (path.name,))

    found = list(files(place, whole, random.Random(1)))
    try_all("store merge", (bad(*each) for each in found), place)


def test_bad_stores_are_not_opened(whole: Path, tmp_path: Path) -> None:
    """A database of another program is left as it is, to the byte."""
    place = tmp_path / "stores"
    place.mkdir()
    mine = {*KEYS}

    def bad(name: str, path: Path) -> Bad:
        content = path.read_bytes()

        def run() -> None:
            try:
                store = Store(path)
            except UserError:
                assert path.read_bytes() == content
                assert [each.name for each in place.glob(f"{path.name}*")] == [path.name]
                raise
            with closing(store):
                for kind, kept in (("answer", TEXTS), ("log_likelihood", NUMBERS)):
                    found = store.get(kind, [key for key, _ in kept])  # type: ignore[arg-type]
                    assert found.keys() <= mine
                store.statistics()

        return Bad(name, run, (path.name,))

    found = list(files(place, whole, random.Random(2)))
    try_all("answer store", (bad(*each) for each in found))


def test_a_store_is_not_merged_with_itself(whole: Path, tmp_path: Path) -> None:
    """Whatever name it has: it used to wait a minute for its own lock."""
    (tmp_path / "symlink.sqlite").symlink_to(whole)
    (tmp_path / "hardlink.sqlite").hardlink_to(whole)
    store = Store(whole)
    names: Sequence[Path] = (
        whole,
        tmp_path / "symlink.sqlite",
        tmp_path / "hardlink.sqlite",
        tmp_path / "a" / ".." / "whole.sqlite",
    )
    (tmp_path / "a").mkdir()
    for name in names:
        with pytest.raises(UserError, match=r"itself: name another store"):
            merge(store, name)


def test_a_store_of_before_is_stamped_when_it_is_opened(whole: Path) -> None:
    make(whole, "PRAGMA application_id = 0")
    Store(whole).close()
    with closing(sqlite3.connect(whole)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)


def test_answers_that_differ_are_merged_on_demand_alone(whole: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(whole, tmp_path / "other.sqlite"))
    make(other, "UPDATE answer SET text = 'no' WHERE key = x'" + "03" * 16 + "'")
    Store(other).put("answer", IDENTITY, [(b"n" * 16, "new")])
    store = Store(whole)
    with pytest.raises(UserError, match=r"different answers .*'no' and 'answer 3', key 0303"):
        merge(store, other)
    assert store.get("answer", [b"n" * 16]) == {}
    assert merge(store, other, keep_own=True) == 1
    assert store.get("answer", [KEYS[3], b"n" * 16]) == {KEYS[3]: "answer 3", b"n" * 16: "new"}


def test_a_store_that_is_being_written_is_merged_with_what_it_holds(
    whole: Path, tmp_path: Path
) -> None:
    """What is in its log counts, and its log stays."""
    other = Store(tmp_path / "other.sqlite")
    other.put("answer", IDENTITY, [(b"n" * 16, "new")])
    log = tmp_path / "other.sqlite-wal"
    size = log.stat().st_size
    store = Store(whole)
    assert merge(store, other.path) == 1
    assert log.stat().st_size == size > 0
