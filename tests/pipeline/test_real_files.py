"""The same pipeline on files in OK-VQA's format and a VLM from a folder, by params alone."""

import json
import shutil
from pathlib import Path

import pytest

from lever_plus.data.examples import read_splits
from lever_plus.hub.folder import find_folder
from pipeline.okvqa_fixture import PRESET, make_files
from pipeline.project import Project
from vlm.model_zoo import CHOICES, FAMILIES, save

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=[CHOICES["Idefics3"], CHOICES["Qwen2.5-VL"]])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    family, folder = FAMILIES[request.param], tmp_path_factory.mktemp("project")
    project = Project(folder, "presets/smoke.yaml", vision=family.torchvision)
    make_files(project.folder / "data")
    vlm = save(family, project.folder / "models" / "vlm")
    shutil.copytree(find_folder("shipped:clip", None), vlm.parent / "clip")
    preset = project.folder / "preset.yaml"
    preset.write_text(PRESET.format(root="data", vlm="models/vlm", clip="models/clip"))
    project.cli("params", "overlay", "preset.yaml")
    assert "MISSING" not in project.cli("doctor")
    project.dvc("repro")
    return project


def test_the_results_table_has_every_method(project: Project) -> None:
    summary = json.loads((project.folder / "metrics" / "summary.json").read_text())
    methods = {row["method"] for row in summary["rows"]}
    assert {"zero-shot", "random", "sttr", "sft", "rce", "grpo", "oracle"} <= methods
    ceilings = ("oracle", "best-of-")
    for row in summary["rows"]:
        assert row["n"] == (6 if row["method"].startswith(ceilings) else 12)
    assert summary["vlm"]["model"].endswith("ForConditionalGeneration")
    assert summary["metric"] == "VQA accuracy, convention community"
    assert summary["fallback_scores"] == 0
    assert "zero-shot" in project.cli("results")


def test_no_image_is_in_two_splits_or_beside_its_own_question(project: Project) -> None:
    splits = read_splits(project.folder / "artifacts" / "prepare")
    images = {split: {e.image_id for e in rows} for split, rows in splits.items()}
    assert not images["train"] & images["dev"]
    assert not (images["train"] | images["dev"]) & images["test"]
    image_of = {e.question_id: e.image_id for rows in splits.values() for e in rows}
    lines = (project.folder / "artifacts" / "pool" / "pools.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        assert image_of[row["query_id"]] not in {image_of[i] for i in row["pool"]}


def test_rl_data_leave_and_come_back_as_the_older_format(project: Project) -> None:
    pools = "artifacts/pool/pools.jsonl"
    project.cli("export-rl", "artifacts/rl_data/seed1", "rl.json", "--pool", pools)
    said = project.cli("import-rl", "rl.json", "--pool", pools, "--out", "imported")
    assert "variant D: 10 queries" in said
    first = (project.folder / "artifacts" / "rl_data" / "seed1" / "records.jsonl").read_text()
    again = (project.folder / "imported" / "records.jsonl").read_text()
    assert again == first


def test_a_missing_annotation_stops_before_any_model_is_loaded(project: Project) -> None:
    path = project.folder / "data" / "mscoco_val2014_annotations.json"
    whole = path.read_text()
    content = json.loads(whole)
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(AssertionError, match="1 questions of .* have no annotation"):
            project.cli("prepare")
    finally:
        path.write_text(whole)
        project.cli("prepare")


def test_presets_of_real_data_name_what_is_missing(project: Project) -> None:
    presets = sorted(Path(project.folder / "presets").glob("*.yaml"))
    real = [preset for preset in presets if "kind: vqa_files" in preset.read_text("utf-8")]
    assert [preset.name.partition("-")[0] for preset in real] == [
        "easy",
        *["okvqa"] * 2,
        *["vqav2"] * 2,
    ]
    for preset in real:
        with pytest.raises(AssertionError, match="MISSING"):
            project.cli("doctor", "--params", str(preset))
