"""The whole pipeline, small, with the VLM behind a real vLLM."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.project import Project
from vllm.house_requests import settings

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose local VLM has been asked what it reads in context."""
    project = Project(tmp_path_factory.mktemp("project"), "presets/smoke.yaml")
    for stage in ("prepare", "in_context"):
        project.cli(stage)
    return project


def test_the_pipeline_runs_and_the_server_reads_in_context_what_the_local_model_reads(
    vllm_server: str, project: Project, tmp_path: Path
) -> None:
    table = project.folder / "metrics" / "in_context.json"
    local = json.loads(table.read_text(encoding="utf-8"))
    table.unlink()
    preset = tmp_path / "served.yaml"
    with preset.open("w", encoding="utf-8") as file:
        YAML().dump({"vlm": settings(vllm_server, concurrency=64)}, file)
    project.cli("params", "overlay", str(preset))
    project.dvc("repro")
    assert json.loads(table.read_text(encoding="utf-8")) == local
    summary = json.loads((project.folder / "metrics" / "summary.json").read_text(encoding="utf-8"))
    assert {"zero-shot", "sttr", "sft", "rce", "grpo"} <= {row["method"] for row in summary["rows"]}
    kept = project.cli("store", "stat")
    assert settings(vllm_server)["model"] in kept
    assert "log-likelihoods" in kept
    assert "100% from the store" in project.cli("rl_data")
