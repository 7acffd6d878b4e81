"""Kept features only save time: what is not there, or is damaged, is encoded again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lever_plus.features.kept import KeptFeatures
from lever_plus.features.whitening import Array

ENCODER = "a" * 64


class Encode:
    """Encodes a text by its letters, and notes it."""

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
    """Ask as a new process would, check what comes back, and return what was encoded."""
    encode = Encode()
    rows = KeptFeatures(path.parent, encoder).rows(kind, contents, encode)
    np.testing.assert_array_equal(rows, expected(contents))
    return encode


@pytest.mark.invariant
def test_rows_come_back_in_any_order_and_only_new_ones_are_encoded(path: Path) -> None:
    assert ask(path, ["three", "one", "three"]).encoded == []
    assert ask(path, ["three", "four", "one", "four"]).encoded == ["four"]
    assert ask(path, ["one", "two", "three", "four"]).encoded == []


def test_another_encoder_and_another_kind_have_files_of_their_own(path: Path) -> None:
    assert ask(path, ["one"], encoder="b" * 64).encoded == ["one"]
    assert ask(path, ["one"], kind="image").encoded == ["one"]
    assert len(list(path.parent.iterdir())) == 3


def test_without_a_folder_rows_are_kept_in_memory() -> None:
    kept, encode = KeptFeatures(None, ENCODER), Encode()
    for _ in range(2):
        np.testing.assert_array_equal(kept.rows("text", ["b", "a"], encode), expected(["b", "a"]))
    assert encode.encoded == ["b", "a"]


@pytest.mark.invariant
def test_a_file_cut_off_anywhere_is_ignored_and_made_again(path: Path) -> None:
    content = path.read_bytes()
    for length in (0, 5, 8, 60, len(content) - 1):
        path.write_bytes(content[:length])
        assert ask(path, ["one"]).encoded == ["one"]
        assert ask(path, ["one"]).encoded == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored.pop("keys"),
        lambda stored: stored.pop("rows"),
        lambda stored: stored.update(rows=stored["rows"][:-1].copy()),
        lambda stored: stored.update(rows=stored["rows"] * np.float32(np.nan)),
        lambda stored: stored.update(rows=stored["rows"].astype(np.float64)),
        lambda stored: stored.update(rows=stored["rows"][:, 0].copy()),
        lambda stored: stored.update(keys=stored["keys"][:, :-1].copy()),
        lambda stored: stored.update(keys=stored["keys"][0].copy(), rows=stored["rows"][0].copy()),
        lambda stored: stored.update(keys=np.zeros((), np.uint8)),
    ],
    ids=[
        "no keys",
        "no rows",
        "fewer rows",
        "nan",
        "float64",
        "numbers for rows",
        "short keys",
        "one dimension less",
        "a number",
    ],
)
def test_a_damaged_file_is_ignored_and_made_again(
    path: Path, damage: Callable[[dict[str, Array]], object]
) -> None:
    stored = load_file(path)
    damage(stored)
    save_file(stored, path)
    assert ask(path, ["one", "two"]).encoded == ["one", "two"]
    assert ask(path, ["one", "two"]).encoded == []
