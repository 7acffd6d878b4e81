"""Keeping features only saves time: what is missing or damaged is encoded again."""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lever_plus.errors import UserError
from lever_plus.features.kept import KeptFeatures
from lever_plus.features.whitening import Array

ENCODER = "a" * 64


class Encode:
    """Encodes texts by their letters, and records them."""

    def __init__(self) -> None:
        """Start with nothing encoded."""
        self.encoded: list[str] = []

    def __call__(self, contents: Sequence[str]) -> Array:
        self.encoded += contents
        return expected(contents)


def expected(contents: Sequence[str]) -> Array:
    return np.array([[len(text), ord(text[0])] for text in contents], dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a process that has encoded three texts."""
    KeptFeatures(tmp_path / "kept", ENCODER).rows("text", ["one", "two", "three"], Encode())
    (path,) = (tmp_path / "kept").iterdir()
    return path


def ask(path: Path, contents: Sequence[str], encoder: str = ENCODER, kind: str = "text") -> Encode:
    """Ask as a new process would, check the features, and return what had to be encoded."""
    encode = Encode()
    rows = KeptFeatures(path.parent, encoder).rows(kind, contents, encode)
    np.testing.assert_array_equal(rows, expected(contents))
    return encode


@pytest.mark.invariant
def test_rows_come_back_in_any_order_and_only_new_ones_are_encoded(path: Path) -> None:
    assert ask(path, ["three", "one", "three"]).encoded == []
    assert ask(path, ["three", "four", "one", "four"]).encoded == ["four"]
    assert ask(path, ["one", "two", "three", "four"]).encoded == []


def test_another_encoder_has_a_file_of_its_own_and_another_kind_other_rows(path: Path) -> None:
    assert ask(path, ["one"], encoder="b" * 64).encoded == ["one"]
    assert ask(path, ["one"], kind="image").encoded == ["one"]
    assert len(list(path.parent.iterdir())) == 2


def test_without_a_folder_rows_are_kept_in_memory() -> None:
    kept, encode = KeptFeatures(None, ENCODER), Encode()
    for _ in range(2):
        np.testing.assert_array_equal(kept.rows("text", ["b", "a"], encode), expected(["b", "a"]))
    assert encode.encoded == ["b", "a"]


@pytest.mark.invariant
def test_a_file_cut_off_anywhere_is_ignored_and_made_again(path: Path) -> None:
    content = path.read_bytes()
    for length in (0, 5, 8, 60, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert ask(path, ["one"]).encoded == ["one"]
        assert ask(path, ["one"]).encoded == []


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE feature",
        "DELETE FROM feature",
        "UPDATE feature SET row = x''",
        "UPDATE feature SET row = zeroblob(16)",
        "UPDATE feature SET row = substr(row, 1, length(row) - 4)",
        "UPDATE feature SET row = zeroblob(4) || substr(row, 5)",
        "UPDATE feature SET row = 'a text'",
        "UPDATE feature SET row = 7",
        "UPDATE feature SET row = (SELECT max(row) FROM feature)",
    ],
)
def test_rows_that_are_damaged_are_made_again(path: Path, damage: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    texts = ["one", "two", "three"]
    assert len(ask(path, texts).encoded) >= 2  # the largest row may be in its own place
    assert ask(path, texts).encoded == []


def test_features_of_another_size_are_all_made_again(path: Path) -> None:
    wider = KeptFeatures(path.parent, ENCODER).rows(
        "text", ["one", "four"], lambda texts: np.ones((len(texts), 5), np.float32)
    )
    assert wider.shape == (2, 5)
    assert (wider == 1).all()


def test_a_row_more_adds_to_the_file_and_rewrites_nothing(path: Path) -> None:
    """An additional question costs the same, however much is kept."""
    many = [f"{number} of many" for number in range(2000)]
    ask(path, many)
    before = path.stat().st_ino, path.read_bytes()
    ask(path, ["one more"])
    after = path.stat().st_ino, path.read_bytes()
    pages = [range(start, start + 4096) for start in range(0, len(after[1]), 4096)]
    changed = [p for p in pages if before[1][p.start : p.stop] != after[1][p.start : p.stop]]
    assert before[0] == after[0]
    assert len(changed) < 6


def test_threads_and_processes_may_ask_at_once(path: Path) -> None:
    kept = [KeptFeatures(path.parent, ENCODER) for _ in range(2)]

    def ask_one(number: int) -> bool:
        texts = [f"{chr(97 + (number + step) % 26)} {number % 7}" for step in range(20)]
        rows = kept[number % 2].rows("text", texts, expected)
        return bool((rows == expected(texts)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask_one, range(60)))


def test_what_is_in_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lever_plus.features.kept.MOST", 10)
    kept, encode = KeptFeatures(None, ENCODER), Encode()
    texts = [f"{number}" for number in range(25)]
    for text in texts:
        np.testing.assert_array_equal(kept.rows("text", [text], encode), expected([text]))
    kept.rows("text", texts[15:], encode)
    assert encode.encoded == texts
    np.testing.assert_array_equal(kept.rows("text", texts, encode), expected(texts))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(UserError, match=r"file/aaaaaaaaaaaaaaaa\.sqlite can't be written"):
        KeptFeatures(tmp_path / "file", ENCODER).rows("text", ["one"], Encode())
