"""dvc.yaml: each stage has a command and a description, its params exist, the flow is right."""

import hashlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from ruamel.yaml import YAML

from lever_plus.config.params import Params
from tiny_world import ROOT

YAML_ = YAML(typ="safe")
PIPELINE: dict[str, Any] = YAML_.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
CHAIN = ("sft", "rl_data", "rce", "grpo")
VALUES: dict[str, Any] = YAML_.load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def test_the_stages_are_those_of_the_design_in_order() -> None:
    expected = "prepare in_context embed pool sft_data sft rl_data rce grpo evaluate report"
    assert list(STAGES) == expected.split()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_description_and_calls_the_cli(stage: str) -> None:
    assert STAGES[stage]["desc"]
    assert STAGES[stage]["cmd"].startswith(f"lever-plus {stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_params_that_exist(stage: str) -> None:
    for key in STAGES[stage]["params"]:
        value = VALUES
        for part in key.split("."):
            assert part in value, f"{stage}: {key} is not in params.yaml"
            value = value[part]


def test_every_param_is_a_dependency_of_some_stage() -> None:
    """A parameter that no stage depends on has no effect, or one that DVC does not notice."""
    used = {key.split(".")[0] for entry in STAGES.values() for key in entry["params"]}
    # Where answers are computed and kept changes no result.
    assert used == set(Params.model_fields) - {"scoring"}


def test_a_training_seed_is_that_of_a_whole_chain() -> None:
    """Every stage of the chain runs once per seed, and reads only the outputs of its own seed."""
    for number, stage in enumerate(CHAIN):
        entry = STAGES[stage]
        assert entry["matrix"] == {"seed": "${training_seeds}"}
        assert entry["cmd"] == f"lever-plus {stage} --seed ${{item.seed}}"
        assert entry["outs"] == [f"artifacts/{stage}/seed${{item.seed}}"]
        assert list(entry["metrics"][0]) == [f"metrics/{stage}/seed${{item.seed}}.json"]
        before = [dep for dep in entry["deps"] if place(dep).removeprefix("artifacts/") in CHAIN]
        assert len(before) == min(number, 2)
        assert all("/seed${item.seed}" in dep for dep in before)


def test_only_grpo_evaluate_and_report_depend_on_grpo_params() -> None:
    uses = {stage for stage, e in STAGES.items() if any("grpo" in key for key in e["params"])}
    reads = {stage for stage, e in STAGES.items() if "artifacts/grpo" in e["deps"]}
    assert uses == {"grpo", "evaluate"}
    assert reads == {"evaluate", "report"}


def test_metrics_are_kept_in_git() -> None:
    for entry in STAGES.values():
        for metric in entry.get("metrics", []):
            assert next(iter(metric.values())) == {"cache": False}


def place(path: str) -> str:
    """Return the part of an output's path that all items of a matrix share."""
    return "/".join(path.split("/")[:2])


@pytest.mark.slow
def test_the_picture_in_the_documentation_is_the_pipeline() -> None:
    """Its arrows are those of `dvc dag`, without those that longer ways imply."""
    drawing = runpy.run_path(str(ROOT / "docs" / "draw_pipeline.py"))
    svg = (ROOT / "docs" / "pipeline.svg").read_text(encoding="utf-8")
    assert svg == drawing["picture"](), "run `python docs/draw_pipeline.py`"
    command = (sys.executable, "-m", "dvc", "dag", "--dot", "--collapse-foreach-matrix")
    dag = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    whole = nx.DiGraph(re.findall(r'^\s*"(\w+)" -> "(\w+)"', dag, flags=re.MULTILINE))
    assert set(drawing["graph_of"](STAGES).edges) == set(nx.transitive_reduction(whole).edges)


SECTIONS = {
    "config/grpo.py": {"grpo"},
    "config/sft.py": {"sft_data", "sft"},
    "config/evaluate.py": {"evaluate"},
    "config/pool.py": {"pool"},
    "config/in_context.py": {"in_context"},
    "config/house_words.py": set[str](),
    "house_words/recipe/vlm.py": set[str](),
    "config/params.py": set[str](),
    "config/file.py": set[str](),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_concerns_only_the_stages_that_read_it(name: str, tmp_path: Path) -> None:
    """A changed description of a GRPO parameter runs grpo again, and nothing before it.

    DVC runs a stage again where the bytes of a dependency differ, so the stages whose dependencies
    differ after the change are those that run.
    """
    shutil.copytree(ROOT / "src", tmp_path / "src")
    before = dependency_hashes(tmp_path)
    changed = tmp_path / "src" / "lever_plus" / name
    changed.write_text(changed.read_text(encoding="utf-8") + "# another description\n", "utf-8")
    after = dependency_hashes(tmp_path)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == SECTIONS[name]


def dependency_hashes(root: Path) -> dict[str, str]:
    """Return a hash of everything in src/ that each stage depends on."""
    found = {}
    for stage, entry in STAGES.items():
        digest = hashlib.sha256()
        for dep in (root / dep for dep in entry["deps"] if dep.startswith("src/")):
            for path in sorted(dep.rglob("*.py")) if dep.is_dir() else [dep]:
                digest.update(path.read_bytes())
        found[stage] = digest.hexdigest()
    return found
