"""The whole pipeline, small, with the VLM behind a real vLLM."""

import json

import pytest
from ruamel.yaml import YAML

from pipeline.project import Project
from vllm.house_requests import settings

pytestmark = pytest.mark.vllm


TWO_OF_40 = 0.05
"""Answers that may differ in a row of the table: images are resized, see `house_requests`."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose local VLM has been asked what it reads in context."""
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder, "presets/smoke.yaml", "tests/vllm/smaller.yaml")
    for stage in ("prepare", "in_context"):
        project.cli(stage)
    return project


def test_the_pipeline_runs_and_the_server_reads_in_context_what_the_local_model_reads(
    vllm_server: str, project: Project
) -> None:
    table = project.folder / "metrics" / "in_context.json"
    local = json.loads(table.read_text(encoding="utf-8"))
    table.unlink()
    preset = project.folder / "served.yaml"
    with preset.open("w", encoding="utf-8") as file:
        YAML().dump({"vlm": settings(vllm_server, concurrency=64)}, file)
    project.cli("params", "overlay", preset.name)
    project.dvc("repro")
    assert json.loads(table.read_text(encoding="utf-8")) == pytest.approx(local, abs=TWO_OF_40)
    summary = json.loads((project.folder / "metrics" / "summary.json").read_text(encoding="utf-8"))
    assert {"zero-shot", "sttr", "sft", "rce", "grpo"} <= {row["method"] for row in summary["rows"]}
    kept = project.cli("store", "stat")
    assert settings(vllm_server)["model"] in kept
    assert "log-likelihoods" in kept
    assert "100% from the store" in project.cli("rl_data")
