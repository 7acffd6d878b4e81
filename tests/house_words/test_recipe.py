"""The recipe of the shipped models: every stage runs, and they are what the recipe made."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from lever_plus.cli.world import world_app
from lever_plus.errors import UserError
from lever_plus.house_words.recipe import clip, ship, table, vlm
from lever_plus.house_words.recipe.places import Places, read_recipe
from lever_plus.house_words.recipe.training import logged
from lever_plus.hub.folder import MODELS, folder_hash
from lever_plus.tracking.history import read_history
from lever_plus.vlm.open import open_vlm
from tiny_world import ROOT

PROJECT = Places(ROOT)
NAMES = ("clip", *read_recipe(PROJECT.params).vlms)
SMALL = {"cards": 40, "batch_size": 8, "hard_groups": 2, "steps": 3}
SHORT = {"warmup": 1, "plain_steps": 2, "steps": 2, "batch_size": 2}
"""Trainings of seconds."""


def small_recipe(root: Path) -> Places:
    """Write the project's recipe with trainings of seconds."""
    places = Places(root)
    content = YAML(typ="safe").load(PROJECT.params.read_text(encoding="utf-8"))
    content["clip"] |= SMALL
    for each in content["vlms"].values():
        each |= SHORT
    places.recipe.mkdir(parents=True)
    YAML(typ="safe").dump({**content, "image_size": 40, "probes": 4}, places.params)
    return places


def test_every_stage_runs_and_ships_models_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForImageTextToText

    from lever_plus.hub.loading import load_model

    places = small_recipe(tmp_path)
    params = read_recipe(places.params)
    monkeypatch.setattr(table, "SIZES", {"train": 500, "dev": 40})
    monkeypatch.setattr(ship, "MODELS", tmp_path / "package")
    monkeypatch.setattr(vlm, "EPISODES", 4)
    clip.run(params, places)
    for name in params.vlms:
        vlm.run(params, places, name)
    said = table.run(params, places)
    ship.run(params, places)

    assert {path.name for path in (tmp_path / "package").iterdir()} == set(NAMES)
    for name in NAMES:
        folder = str(tmp_path / "package" / name)
        kind = AutoModel if name == "clip" else AutoModelForImageTextToText
        load_model(kind, folder, None, "cpu", dtype=torch.float32)
        weights = load_file(f"{folder}/model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float16}
        rows = read_history(places.log(name))
        assert rows[0]["step"] == 0
        assert rows[-1]["step"] == (2 if name == "clip" else 3)
        assert all(float(row["loss"]) > 0 for row in rows)
        looked = set(vlm.LOOKS) if name != "clip" else set()
        assert set(rows[-1]) == {"step", "loss", *looked}
        assert all(0 <= float(rows[-1][look]) <= 1 for look in looked)
    shares = json.loads(places.table.read_text())
    rules = set(shares["vlm"])
    assert {name: set(found) for name, found in shares.items()} == dict.fromkeys(params.vlms, rules)
    assert all(0 <= share <= 1 for found in shares.values() for share in found.values())
    assert all(rule in said for rule in rules)


def test_the_log_has_what_the_model_can_do_from_time_to_time(tmp_path: Path) -> None:
    looks = iter(range(9))
    with logged(tmp_path / "vlm.jsonl", 215, lambda: {"both": float(next(looks))}) as on_step:
        for step in range(215):
            on_step(step, 1.0)
    rows = read_history(tmp_path / "vlm.jsonl")
    assert [row["step"] for row in rows] == [*range(0, 211, 10), 214]
    assert {row["step"]: row["both"] for row in rows if "both" in row} == {
        **{0: 0.0, 100: 1.0},
        **{200: 2.0, 214: 3.0},
    }


def test_a_vlm_that_the_recipe_lacks_and_a_mistyped_setting_are_named(tmp_path: Path) -> None:
    places = small_recipe(tmp_path)
    with pytest.raises(UserError, match="has no VLM 'vlm-9'; it has vlm, vlm-2"):
        vlm.run(read_recipe(places.params), places, "vlm-9")
    text = places.params.read_text()
    places.params.write_text(text + "prbes: 4\n")
    with pytest.raises(UserError, match="unknown key prbes"):
        read_recipe(places.params)
    places.params.write_text(text.replace("vlm-2:", "CLIP:"))
    with pytest.raises(UserError, match="vlms: 'CLIP': 'clip' is reserved"):
        read_recipe(places.params)


def test_nothing_is_shipped_where_a_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = small_recipe(tmp_path)
    monkeypatch.setattr(ship, "MODELS", tmp_path / "package")
    with pytest.raises(UserError, match=r"clip is missing: run `make world`"):
        ship.run(read_recipe(places.params), places)
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("stage", "lacks"), [("vlm vlm", "clip"), ("table", "vlm"), ("ship", "clip")]
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_stage_before_its_turn_says_how_the_models_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, lacks: str, *, empty: bool
) -> None:
    """It once asked to correct a path in params.yaml, which has no such path."""
    places = small_recipe(tmp_path)
    if empty:
        places.model(lacks).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^artifacts/house_words/{lacks} is missing: run `make"):
        typer.main.get_command(world_app).main(stage.split(), standalone_mode=False)


def pipeline(name: str) -> dict[str, Any]:
    """Return the recipe's dvc.yaml or dvc.lock."""
    found: dict[str, Any] = YAML(typ="safe").load((PROJECT.recipe / name).read_text("utf-8"))
    return found


def test_the_pipeline_reads_settings_that_there_are_and_asks_every_vlm() -> None:
    settings = YAML(typ="safe").load(PROJECT.params.read_text(encoding="utf-8"))
    stages = {
        name: entry.get("do", entry) for name, entry in pipeline("dvc.yaml")["stages"].items()
    }
    read = set()
    for entry in stages.values():
        ((_, keys),) = entry["params"][0].items()
        for key in keys:
            value = settings
            for part in key.replace("${key}", "vlm").split("."):
                value = value[part]
            read.add(key.partition(".")[0])
    assert read == set(settings)
    made = {str(PROJECT.model(name).relative_to(ROOT)) for name in NAMES}
    assert made - {"artifacts/house_words/clip"} <= set(stages["table"]["deps"])


def dvc_hash(folder: Path) -> str:
    """Return what DVC writes in a lock file for a folder."""
    rows = [
        {
            "md5": hashlib.md5(path.read_bytes()).hexdigest(),
            "relpath": path.relative_to(folder).as_posix(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    rows.sort(key=lambda row: row["relpath"])
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_the_one_that_the_recipe_made(name: str) -> None:
    made = {
        out["path"]: out["md5"]
        for entry in pipeline("dvc.lock")["stages"].values()
        for out in entry["outs"]
    }
    assert dvc_hash(MODELS / name) == made[f"artifacts/house_words/{name}"]


def test_the_shipped_models_are_small_and_in_every_build() -> None:
    """A wheel holds what is in the package's folder and not ignored by git."""
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(NAMES)
    assert sum(path.stat().st_size for path in files) <= 8 * 2**20
    command = ["git", "check-ignore", "--no-index", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_shipped_vlms_are_opened_by_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES[1:]:
        assert open_vlm(f"shipped:{name}").identity["revision"] == folder_hash(MODELS / name)
