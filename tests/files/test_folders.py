"""Folders are replaced whole: after a failure, a full disk or a kill, the old one is there."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lever_plus.config.file import load_with_preset
from lever_plus.config.settings import settings_of
from lever_plus.errors import UserError
from lever_plus.files.writing import replacing_folders
from lever_plus.house_words.recipe import clip
from lever_plus.house_words.recipe.places import Places, read_recipe
from lever_plus.pipeline import prepare
from lever_plus.pipeline.paths import Paths
from tiny_world import ROOT


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def fill(folders: list[Path], text: str) -> None:
    for folder in folders:
        (folder / "deep").mkdir()
        (folder / "deep" / text).write_text(text)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "outs" / "a", tmp_path / "outs" / "b.c"]
    with replacing_folders(folders) as fresh:
        fill(fresh, "old")
    return folders


def test_folders_take_the_place_of_those_that_were_there(pair: list[Path], tmp_path: Path) -> None:
    with replacing_folders(pair) as fresh:
        fill(fresh, "new")
        assert contents(tmp_path / "outs")["a/deep/old"] == b"old"
    assert contents(tmp_path) == {"outs/a/deep/new": b"new", "outs/b.c/deep/new": b"new"}


@pytest.mark.parametrize(
    "error", [ValueError("mine"), UserError("mine"), KeyboardInterrupt("mine")]
)
def test_what_fails_leaves_them(pair: list[Path], tmp_path: Path, error: BaseException) -> None:
    before = contents(tmp_path)

    def failing() -> None:
        with replacing_folders(pair) as fresh:
            fill(fresh, "new")
            raise error

    with pytest.raises(type(error), match="mine"):
        failing()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # a tokenizer's
    ],
)
def test_a_full_disk_is_a_sentence(pair: list[Path], tmp_path: Path, error: Exception) -> None:
    before = contents(tmp_path)

    def failing() -> None:
        with replacing_folders(pair) as fresh:
            fill(fresh[:1], "new")
            raise error

    with pytest.raises(UserError, match=r"outs/a, .*b\.c can't be written .*No space left"):
        failing()
    assert contents(tmp_path) == before


def test_an_error_about_another_file_is_its_own(pair: list[Path]) -> None:
    with pytest.raises(FileNotFoundError), replacing_folders(pair):
        Path("/there/is/none").read_text()


KILLED = """
import os, signal, sys
from pathlib import Path
from lever_plus.files import writing
folders, moves = [Path("outs/a"), Path("outs/b.c")], int(sys.argv[1])
rename, done = Path.rename, []
def counted(path, target):
    if len(done) == moves:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(path)
    return rename(path, target)
Path.rename = counted
with writing.replacing_folders(folders) as fresh:
    for folder in fresh:
        (folder / "new").write_text("new")
"""


@pytest.mark.parametrize("moves", range(4))
def test_a_kill_leaves_no_folder_beside_one_of_another_time(
    pair: list[Path], tmp_path: Path, moves: int
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(moves)], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    found = {name for folder in pair for name in contents(folder)}
    assert len(found) <= 1, found
    with replacing_folders(pair) as fresh:
        fill(fresh, "next")
    assert len(contents(tmp_path)) == 2


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file grow beyond a number of bytes, as if the disk were full.

    Not a fixture: pytest prints a test's result before it ends the test's fixtures, and what it
    prints may go to a file that is longer.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_embedded_data_and_models_are_whole_or_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that filled up while they were made once left half a data set and half a model."""
    monkeypatch.chdir(tmp_path)
    params, paths = load_with_preset(ROOT / "params.yaml", ROOT / "presets" / "smoke.yaml"), Paths()
    recipe, places = read_recipe(Places(ROOT).params), Places()
    for folder in (paths.prepare, paths.images, places.clip):
        folder.mkdir(parents=True)
        (folder / "old").write_text("old")
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match=r"^artifacts/prepare/.* can't be written"),
        small_files(),
    ):
        prepare.run(settings_of(prepare.Settings, params), paths)
    few = recipe.clip.model_copy(update={"cards": 8, "batch_size": 2, "steps": 1})
    with pytest.raises(UserError, match=r"^artifacts/house_words/clip can't"), small_files():
        clip.run(recipe.model_copy(update={"clip": few}), places)
    places.log("clip").unlink()
    assert contents(tmp_path) == before
