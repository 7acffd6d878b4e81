"""Every setting has the effect that it should have, and is read by the stages that should."""

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lever_plus.config.file import TABLES, changed_params
from lever_plus.config.params import Params
from lever_plus.config.settings import keys_read
from lever_plus.pipeline import in_context
from lever_plus.pipeline.paths import Paths
from pipeline.formula_world import SEEDED, STAGES, Ran, World
from pipeline.params_table import SETTINGS, Leaf
from tiny_world import ROOT

EMBEDDED: Mapping[str, Any] = {
    "data": {
        "source": {
            **{"kind": "embedded", "train": 24, "dev": 8, "test": 8},
            **{"plain_share": 0.4, "image_size": 64},
        },
        **{"rl_queries": 20, "sft_queries": 10},
    },
    "pool": {"scarcity": 1.0},
    "in_context": {"probes": 3},
    "vlm": {"path": "shipped:vlm"},
    "embed": {"path": "shipped:clip"},
}
"""The embedded data set, very small; its leaves have no effect on files of one's own."""
OF_EMBEDDED = ("data.source.", "pool.scarcity", "in_context.")
MAIN = {
    "prepare": "test.jsonl",
    "in_context": "in_context.json",
    "embed": "white.npy",
    "pool": "pools.jsonl",
    "sft_data": "searches.jsonl",
    "sft": "policy.safetensors",
    "rl_data": "records.jsonl",
    "rce": "policy.safetensors",
    "grpo": "policy.safetensors",
    "evaluate": "scores.parquet",
    "report": "index.html",
}
"""The file that a stage is run for."""


def leaves(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a section; a table of names is one."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        whole = not isinstance(value, dict) or name in TABLES
        found |= {prefix + name: value} if whole else leaves(value, f"{prefix}{name}.")
    return found


VALUES = leaves(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
SHOWN_HERE = [key for key, leaf in SETTINGS.items() if "::" not in leaf.shown]
QUICK = ("prepare", "in_context", "embed", "pool", "sft_data")
"""Stages that run in a moment: `make test` tries all their settings."""


def in_tiers(keys: list[str]) -> list[Any]:
    """Return settings for a test; of a stage that is not quick, `make test` tries the first one."""
    tried: set[str] = set()
    found = []
    for key in keys:
        stages = {part.partition(":")[0] for part in SETTINGS[key].shown.split()} - {*QUICK}
        later = bool(stages) and stages <= tried
        found.append(pytest.param(key, marks=[pytest.mark.long] if later else []))
        tried |= stages
    return found


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def changed(params: Params, key: str, leaf: Leaf) -> Params:
    """Return params with another value of a leaf, and what that needs."""
    if key == "policy.kind":
        whole = {"kind": leaf.value, "hidden": 16, **leaf.beside["policy"]}
        return changed_params(params, {"policy": whole})
    if key == "pointer.shots":
        return changed_params(params, {**nested(key, leaf.value), **leaf.beside})
    return changed_params(changed_params(params, leaf.beside), nested(key, leaf.value))


def base(params: Params, key: str, leaf: Leaf) -> Params:
    """Return params that differ from the changed ones in the leaf alone."""
    if key in ("policy.kind", "pointer.shots"):
        return params
    return changed_params(params, leaf.beside)


def test_the_table_has_every_leaf_of_params_yaml_and_no_other() -> None:
    assert list(SETTINGS) == list(VALUES)


@pytest.mark.parametrize("key", SETTINGS)
def test_a_leaf_is_read_by_its_stages_alone_and_has_another_value(key: str) -> None:
    reading = [
        stage
        for stage, module in STAGES.items()
        for read in keys_read(module.Settings)
        if f"{key}.".startswith(f"{read}.")
    ]
    assert sorted(reading) == sorted(SETTINGS[key].stages.split())
    shown = SETTINGS[key].shown
    if "::" not in shown:
        assert {part.partition(":")[0] for part in shown.split()} <= set(reading)
        return
    assert SETTINGS[key].why
    assert SETTINGS[key].value != VALUES[key]
    path, _, test = shown.partition("::")
    assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def hashes(root: Path, *places: Path) -> dict[str, str]:
    """Return the hash of every file that stages write, less the places where the project is.

    How long selections took is no output.
    """
    folders = [root / name for name in ("artifacts", "metrics", "plots")]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    found = {}
    for path in files - {Paths(root).timing}:
        content = path.read_bytes()
        for place in (root, *places):
            content = content.replace(str(place).encode(), b"")
        found[path.relative_to(root).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def run(world: World, stage: str, params: Params, root: Path) -> dict[str, str]:
    """Run a stage in a copy of the world; return the hashes of all files."""
    shutil.copytree(world.paths.root, root)
    other = World(Paths(root), params)
    with pytest.MonkeyPatch.context() as patch:
        probes = lambda *given: {"probes": float(given[4])}  # noqa: E731
        patch.setattr(in_context, "in_context_table", probes)
        other.run(stage, 1 if stage in SEEDED else None)
    found = hashes(root, world.paths.root)
    shutil.rmtree(root)
    return found


@pytest.fixture(scope="module")
def house(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The embedded data set in place of files."""
    root = tmp_path_factory.mktemp("house") / "project"
    world = World(Paths(root), changed_params(ran.world.params, EMBEDDED))
    root.mkdir()
    world.run("prepare")
    return replace(world)


@pytest.fixture(scope="module")
def known() -> dict[Any, dict[str, str]]:
    """Results with unchanged settings, kept so that each stage runs only once with them."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("key", in_tiers(SHOWN_HERE))
def test_another_value_changes_what_its_stages_write(
    ran: Ran, house: World, known: dict[Any, dict[str, str]], key: str, tmp_path: Path
) -> None:
    """It changes the stage's main file, or the named one, and no file of another stage."""
    leaf = SETTINGS[key]
    world = house if key.startswith(OF_EMBEDDED) else ran.world
    before = base(world.params, key, leaf)
    if key == "data.source.kind":
        leaf = leaf._replace(value="embedded")
        world, before, after = ran.world, ran.world.params, house.params
    else:
        after = changed(world.params, key, leaf)
    for part in leaf.shown.split():
        stage, _, name = part.partition(":")
        unchanged = (id(world), stage, before.model_dump_json())
        if unchanged not in known:
            known[unchanged] = run(world, stage, before, tmp_path / "before")
        first, then = known[unchanged], run(world, stage, after, tmp_path / "after")
        differing = {path for path, _ in first.items() ^ then.items()}
        assert any(path.endswith(name or MAIN[stage]) for path in differing), differing
        own = (f"artifacts/{stage}/", "metrics/", "plots/", "artifacts/images/")
        assert all(path.startswith(own) for path in differing)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_unchanged_settings_change_nothing(ran: Ran, stage: str, tmp_path: Path) -> None:
    """So whatever another value changes is changed by this value alone."""
    first = hashes(ran.world.paths.root)
    again = run(ran.world, stage, ran.world.params, tmp_path / "again")
    assert {path for path, _ in first.items() ^ again.items()} == set()
