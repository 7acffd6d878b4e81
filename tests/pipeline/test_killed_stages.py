"""Stages are killed again and again, or find the disk full, and end as if nothing had happened.

After each kill the stage is started once more, from what the kill left: it resumes, or kills itself
at another moment. In the end all files are those of a run that nobody killed, byte for byte, and no
answer that was stored had to be asked again.
"""

import random
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lever_plus.pipeline.paths import HISTORY, Paths
from pipeline.formula_world import SEEDED, Ran
from pipeline.zygote import Zygote

STAGES = ("sft_data", "sft", "rl_data", "rce", "grpo", "evaluate")
FEW, SOME, MANY = 2, 8, 20
WRITING = ["prepare", "embed", "pool", *STAGES, "report"]


def others_long(stages: Iterable[str], first: set[str]) -> list[Any]:
    """Return stages for a test, of which all but the first are left to `make test-long`."""
    return [pytest.param(s, marks=[] if s in first else [pytest.mark.long]) for s in stages]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


def contents(root: Path) -> dict[str, bytes]:
    """Return all outs of a project."""
    folders = [root / name for name in ("artifacts", "metrics", "plots")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    files -= {Paths(root).timing}  # no output: it is never the same twice
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def stored(root: Path) -> int:
    """Return how many answers are in the store; it is sound."""
    path = root / "cache" / "answers.sqlite"
    if not path.is_file():
        return 0
    with sqlite3.connect(path) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = {row[0] for row in store.execute("SELECT name FROM sqlite_master")}
        if "answer" not in tables:
            return 0
        return int(store.execute("SELECT COUNT(*) FROM answer").fetchone()[0])


def without_outs(root: Path, stage: str, seed: int | None) -> None:
    """Remove what a stage wrote, as DVC does before it runs it, and what is kept beside it."""
    seeds = "" if seed is None else f"seed{seed}"
    shutil.rmtree(root / "artifacts" / stage / seeds)
    shutil.rmtree(root / "cache", ignore_errors=True)


def kill_often(zygote: Zygote, ran: Ran, stage: str, times: int, root: Path) -> None:
    shutil.copytree(ran.world.paths.root, root, dirs_exist_ok=True)
    seed = 1 if stage in SEEDED else None
    whole = contents(root)
    rng = random.Random(f"{stage} {times}")
    without_outs(root, stage, seed)
    calls = zygote.run(root, stage, seed)["calls"]
    assert contents(root) == whole
    without_outs(root, stage, seed)
    killed = answered = 0
    while True:
        moment = rng.randrange(1, calls) if killed < times else None
        done = zygote.run(root, stage, seed, moment)
        assert done["error"] is None, f"after {killed} kills: {done['error']}"
        assert done["sentence"] is None, f"after {killed} kills"
        answered += done["answered"]
        assert stored(root) >= answered
        killed += done["signal"] != 0
        if done["signal"] == 0:
            assert contents(root) == whole, f"after {killed} kills"
            if moment is None:
                return
            without_outs(root, stage, seed)
            answered = 0


@pytest.mark.parametrize("stage", others_long(STAGES, {"grpo"}))
def test_a_stage_that_was_killed_ends_as_one_that_was_not(
    zygote: Zygote, ran: Ran, stage: str, tmp_path: Path
) -> None:
    kill_often(zygote, ran, stage, FEW, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_was_killed_often_ends_as_one_that_was_not(
    zygote: Zygote, ran: Ran, stage: str, tmp_path: Path
) -> None:
    kill_often(zygote, ran, stage, MANY, tmp_path)


def assert_as_before(found: Mapping[str, bytes], whole: Mapping[str, bytes], why: str) -> None:
    """Compare outs: each is as it was, or is gone, and then what it belongs to does not count.

    A history is written while its training runs, so it may have its first rows.
    """
    assert found.keys() <= whole.keys(), why
    for name, content in found.items():
        live = name.endswith(HISTORY) and whole[name].startswith(content)
        assert live or content == whole[name], f"{name}: {why}"


def fill_often(zygote: Zygote, ran: Ran, stage: str, times: int, root: Path) -> None:
    """Let a stage fail after writing various sizes; old files stay, and the next run succeeds."""
    shutil.copytree(ran.world.paths.root, root, dirs_exist_ok=True)
    seed = 1 if stage in SEEDED else None
    assert zygote.run(root, stage, seed)["sentence"] is None
    shutil.rmtree(root / "cache")
    whole = contents(root)
    largest = max(map(len, whole.values()))
    rng = random.Random(f"{stage} {times}")
    failed = 0
    for _ in range(times):
        limit = round(largest ** rng.random())
        done = zygote.run(root, stage, seed, largest=limit)
        assert done["signal"] == 0
        assert done["error"] is None, f"{limit} bytes: {done['error']}"
        assert_as_before(contents(root), whole, f"{limit} bytes: {done['sentence']}")
        failed += done["sentence"] is not None
        assert "damaged" not in str(done["sentence"])
    assert failed
    assert zygote.run(root, stage, seed)["sentence"] is None
    assert contents(root) == whole


@pytest.mark.parametrize("stage", others_long(WRITING, {"embed", "rl_data", "rce"}))
def test_a_full_disk_ends_a_stage_with_a_sentence_and_leaves_what_was_there(
    zygote: Zygote, ran: Ran, stage: str, tmp_path: Path
) -> None:
    fill_often(zygote, ran, stage, 2 * FEW, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("stage", WRITING)
def test_a_disk_that_fills_at_any_byte_ends_a_stage_with_a_sentence(
    zygote: Zygote, ran: Ran, stage: str, tmp_path: Path
) -> None:
    fill_often(zygote, ran, stage, SOME, tmp_path)
