"""Stage prepare: what it refuses, and what it does not change."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lever_plus.data.examples import read_splits
from lever_plus.errors import UserError
from lever_plus.pipeline import prepare
from lever_plus.pipeline.paths import Paths
from pipeline.formula_world import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    root = tmp_path / "project"
    root.mkdir()
    return make_world(root)


def change(world: World, split: str, key: str, change_row: Any) -> None:
    path = world.paths.root / "data" / f"{key}_{split}.json"
    rows = json.loads(path.read_text())[key]
    path.write_text(json.dumps({key: [change_row(row) for row in rows]}))


def test_image_numbers_that_start_again_in_every_split_lose_no_question(world: World) -> None:
    """Each split has a folder of its own, as VizWiz has: an id alone says nothing."""
    data = world.paths.root / "data"
    world.run("prepare")
    before = read_splits(world.paths.prepare, world.paths.root)
    source = world.params.data.source.model_dump()
    for place, split in enumerate(("train", "dev", "test"), start=1):
        (data / split).mkdir()
        for path in (data / "images").glob(f"card_{place}*.png"):
            shutil.copy(path, data / split / f"{int(path.stem[-4:]) - 1000 * place}.png")
        for key in ("questions", "annotations"):
            change(world, split, key, lambda row: {**row, "image_id": row["image_id"] % 1000})
        source[split] |= {"images": split, "image_name": "{image_id}.png"}
    again = World(world.paths, world.params.model_copy())
    again = world.changed({"data": {"source": source}}, {}, world.paths.root)
    again.run("prepare")
    after = read_splits(world.paths.prepare, world.paths.root)
    for split in before:
        assert [e.question_id for e in after[split]] == [e.question_id for e in before[split]]
        assert [e.image_sha256 for e in after[split]] == [e.image_sha256 for e in before[split]]
    ids = {split: {e.image_id for e in examples} for split, examples in after.items()}
    assert sum(map(len, ids.values())) == len(set.union(*ids.values()))


def test_the_same_picture_in_training_and_test_is_left_out_and_said(world: World) -> None:
    """The same number and the same bytes, whatever the folder."""
    data = world.paths.root / "data"
    shutil.copytree(data / "images", data / "others")
    for key in ("questions", "annotations"):
        change(world, "test", key, lambda row: {**row, "image_id": row["image_id"] - 2000})
    source = world.params.data.source.model_dump()
    source["test"]["images"] = "others"
    again = world.changed({"data": {"rl_queries": 60, "source": source}}, {}, world.paths.root)
    outcome = prepare.run(again.settings("prepare"), again.paths)  # type: ignore[arg-type]
    assert "30 training questions left out, because" in outcome.text
    splits = read_splits(world.paths.prepare, world.paths.root)
    assert len(splits["train"]) == 66


def test_a_temporary_folder_of_an_experiment_finds_the_data_of_the_project(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not in git, so DVC does not copy them; the outputs are still the same bytes."""
    monkeypatch.chdir(world.paths.root)
    here = World(Paths(), world.params)
    here.run("prepare")
    files = [f"artifacts/prepare/{split}.jsonl" for split in ("train", "dev", "test")]
    expected = [Path(name).read_bytes() for name in files]
    temporary = tmp_path / "exps" / "tmp"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(world.paths.root))
    monkeypatch.chdir(temporary)
    there = World(Paths(), world.params)
    there.run("prepare")
    assert [Path(name).read_bytes() for name in files] == expected
    for example in read_splits(there.paths.prepare)["train"]:
        assert Path(example.image).is_file()


@pytest.mark.parametrize(
    ("key", "row", "message"),
    [
        ("questions", {"question": " "}, r"are empty or hold control .*first ids: 3000, 3001"),
        ("questions", {"question_id": True}, r"questions\[0\].question_id"),
        ("annotations", {"answers": [{"answer": ""}] * 10}, "most frequent answers in .*3000"),
    ],
)
def test_files_that_are_refused_leave_what_was_there(
    world: World, key: str, row: dict[str, Any], message: str
) -> None:
    world.run("prepare")
    before = {path: path.read_bytes() for path in world.paths.prepare.iterdir()}
    change(world, "test", key, lambda old: {**old, **row})
    with pytest.raises(UserError, match=message):
        world.run("prepare")
    assert {path: path.read_bytes() for path in world.paths.prepare.iterdir()} == before


def test_no_question_and_too_few_for_a_pool_are_refused(world: World) -> None:
    for changes, message in (
        ({"pool": {"size": 97}}, "pool.size is 97, but training has 96 questions"),
        ({"data": {"rl_queries": 97}}, "data.rl_queries is 97, but training has 96"),
    ):
        with pytest.raises(UserError, match=message):
            world.changed(changes, {}, world.paths.root).run("prepare")
    for key in ("questions", "annotations"):
        (world.paths.root / "data" / f"{key}_dev.json").write_text(json.dumps({key: []}))
    with pytest.raises(UserError, match=r"questions_dev\.json holds no question"):
        world.run("prepare")
