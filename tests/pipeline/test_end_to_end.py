"""The real pipeline, from images to the results table, in a temporary copy of the project."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from glossary_entries import explained
from lever_plus.data.pools import read_pools
from lever_plus.tracking.glossary import GLOSSARY
from lever_plus.training.rl_data.records import read_rl_data
from pipeline.project import Project

VARIANTS = """
seeds: [1]
variants:
  fewer:
    asks: Do fewer candidates do?
    methods: [agro, grpo]
    versus: default
    params: {rl_data: {beam: 1, stochastic_beam: {"1.0": 3}, retrieval: 1}}
transfers:
  few-in-a-pool:
    asks: Do they carry over to other pools?
    policies: fewer
    methods: [sttr, grpo]
    versus: few-in-a-pool/sttr
    params: {pool: {size: 6}}
"""
EXECUTE = """
import sys, nbformat, nbclient
for path in sys.argv[1:]:
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": "."}}).execute()
"""
METRICS = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
print(json.dumps(sorted({name for run in runs for name in run.data.metrics})))
"""
MODELS = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
versions = client.search_model_versions("name = 'lever-plus'")
champion = client.get_model_version_by_alias("lever-plus", "champion")
print(json.dumps([sorted(v.tags["pipeline.method"] for v in versions), champion.tags]))
"""
METHODS = {
    *("zero-shot", "random", "sttr", "vote", "siir", "sitr", "mixed", "diverse", "fixed"),
    *("sft", "sft-beams", "rce", "agro", "grpo", "grpo-stop"),
    *("instructed", "sttr-as-many", "best-of-3", "oracle"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder, "presets/smoke.yaml", "tests/pipeline/learning.yaml")
    project.dvc("repro")
    return project


@pytest.mark.slow
def test_the_summary_has_every_method_with_interval_n_and_seeds(project: Project) -> None:
    summary = json.loads((project.folder / "metrics" / "summary.json").read_text())
    assert {row["method"] for row in summary["rows"]} == METHODS
    assert sorted(method["name"] for method in summary["methods"]) == sorted(METHODS)
    assert all(method["label"] for method in summary["methods"])
    for row in summary["rows"]:
        low, high = row["ci95"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert row["n"] == (20 if row["method"] in ("best-of-3", "oracle") else 60)
    versus = {(row["method"], row["versus"]) for row in summary["differences"]}
    assert {("rce", "sft"), ("grpo", "sft"), ("grpo", "rce"), ("sft", "rce")} <= versus


@pytest.mark.slow
def test_nothing_is_run_again(project: Project) -> None:
    assert "Data and pipelines are up to date" in project.dvc("repro")


@pytest.mark.slow
def test_mlflow_has_a_run_for_every_training_stage(project: Project) -> None:
    assert "0 runs created, 0 got their evaluation" in project.cli("track", "sync")


@pytest.mark.slow
def test_every_selector_is_in_the_model_registry_and_grpo_is_the_champion(
    project: Project,
) -> None:
    """The last stage registers them; nothing is left for later."""
    assert "0 selectors registered" in project.cli("track", "sync")
    methods, champion = json.loads(project.python(MODELS).splitlines()[-1])
    assert methods == ["agro", "grpo", "grpo-stop", "rce", "sft", "sft-beams"]
    assert champion["pipeline.method"] == "grpo"
    assert champion["dvc.path"] == "artifacts/grpo/seed1/grpo/policy.safetensors"


@pytest.mark.long
def test_the_policies_that_are_compared_have_learned_something(project: Project) -> None:
    """If all were the SFT policy, equal bytes would prove nothing."""
    metrics = project.folder / "metrics"
    offline = json.loads((metrics / "rce" / "seed1.json").read_text())
    online = json.loads((metrics / "grpo" / "seed1.json").read_text())
    assert offline["agro"]["best_epoch"] > 0
    assert online["grpo"]["best_epoch"] > 0
    made = project.folder / "artifacts"
    trained = ("sft/seed1/sft", "rce/seed1/agro", "grpo/seed1/grpo")
    weights = {(made / folder / "policy.safetensors").read_bytes() for folder in trained}
    assert len(weights) == len(trained)


@pytest.mark.long
def test_the_same_seed_gives_the_same_bytes(project: Project) -> None:
    """RL data and checkpoints of a second run equal those of the first, byte for byte.

    MLflow has the second trainings too; the evaluation holds for them as it does for the first.
    """
    folders = [project.folder / "artifacts" / name for name in ("rl_data", "rce", "grpo", "sft")]
    files = sorted(p for folder in folders for p in folder.rglob("*") if p.is_file())
    assert {p.name for p in files} >= {"records.jsonl", "policy.safetensors", "history.jsonl"}
    before = {path: path.read_bytes() for path in files}
    shutil.rmtree(project.folder / "cache")  # nothing may come from the store
    stages = ("sft_data", *(f"{stage} --seed 1" for stage in ("sft", "rl_data", "rce", "grpo")))
    for command in stages:
        project.cli(*command.split())
    changed = [str(path) for path in files if path.read_bytes() != before[path]]
    assert changed == []
    assert "0 runs created, 6 got their evaluation" in project.cli("track", "sync")
    assert "0 runs created, 0 got their evaluation" in project.cli("track", "sync")


@pytest.mark.slow
def test_the_rl_data_are_valid_and_inside_their_pools(project: Project) -> None:
    pools = read_pools(project.folder / "artifacts" / "pool" / "pools.jsonl")
    meta, records = read_rl_data(project.folder / "artifacts" / "rl_data" / "seed1", pools)
    assert meta.records == len(records) == 120
    assert {c.gen_method for r in records for c in r.candidates} == {"beam", "sample", "random"}
    assert all(len(c.shots) == 4 for r in records for c in r.candidates)
    assert all(r.query_id not in c.pointer for r in records for c in r.candidates)


@pytest.mark.slow
def test_the_store_has_the_answers_of_the_tiny_vlm(project: Project) -> None:
    said = project.cli("store", "stat")
    assert "LlavaForConditionalGeneration" in said
    assert "log-likelihoods" in said


@pytest.mark.slow
def test_a_stage_that_runs_again_asks_nothing(project: Project) -> None:
    said = project.cli("rl_data")
    assert "100% from the store" in said


@pytest.mark.slow
def test_dvc_shows_the_metrics_and_the_report_is_there(project: Project) -> None:
    assert "metrics/sft/seed1.json" in project.dvc("metrics", "show")
    page = (project.folder / "artifacts" / "report" / "index.html").read_text(encoding="utf-8")
    assert all(method in page for method in METHODS)
    assert "grpo" in project.cli("results")


@pytest.mark.long
def test_a_variant_is_trained_evaluated_tracked_and_compared(project: Project) -> None:
    """It has its own RL data; the pipeline's do not change; its runs are in the MLflow store."""
    variants = project.folder / "ablations" / "variants.yaml"
    variants.write_text(VARIANTS, encoding="utf-8")
    records = project.folder / "artifacts" / "rl_data" / "seed1" / "records.jsonl"
    before = records.read_bytes()
    said = project.dvc("repro", "ablations/dvc.yaml")
    assert "fewer: stages run again: rl_data, rce, grpo; 1 seeds" in said
    assert "few-in-a-pool: policies of fewer, 1 seeds" in said
    assert "| fewer" in said
    assert "| default" in said
    assert records.read_bytes() == before
    rows = json.loads((project.folder / "metrics" / "ablations.json").read_text())["rows"]
    assert {(row["variant"], row["method"], row["n"]) for row in rows} == {
        ("fewer", "grpo", 60),
        ("fewer", "agro", 60),
        ("default", "grpo", 60),
        ("default", "agro", 60),
        ("few-in-a-pool", "sttr", 60),
        ("few-in-a-pool", "grpo", 60),
    }
    made = project.folder / "artifacts" / "ablations" / "fewer" / "seed1"
    assert (made / "grpo" / "policy.safetensors").is_file()
    assert "0 runs created" in project.cli("track", "sync")
    assert "Data and pipelines are up to date" in project.dvc("repro", "ablations/dvc.yaml")


@pytest.mark.long
def test_a_study_runs_on_the_rl_data_and_goes_on(project: Project) -> None:
    """Trial 0 is RCE-only; the storage says so after another process has gone on."""
    settings = project.folder / "search" / "params.yaml"
    text = settings.read_text(encoding="utf-8")
    for before, after in (
        ("trials: 30", "trials: 3"),
        ("workers: 2", "workers: 1"),
        ("seeds: [1, 2]", "seeds: [1]"),
        ("fresh_seeds: [11, 12, 13]", "fresh_seeds: [11, 12]"),
        ("epochs: 4", "epochs: 1"),
        ("kl_budget: 2.0", "kl_budget: 1.0e+6"),
    ):
        assert before in text
        text = text.replace(before, after)
    settings.write_text(text, encoding="utf-8")
    assert "worker 0: 3 trials" in project.cli("study", "run")
    assert "worker 0: 0 trials" in project.cli("study", "run")
    with (project.folder / "search" / "results" / "trials.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert (first["role"], first["epochs"], float(first["difference"])) == ("baseline", "0", 0.0)
    settings.write_text(text.replace("trials: 3", "trials: 6"), encoding="utf-8")
    assert "worker 0: 3 trials" in project.cli("study", "run")
    before = (project.folder / "params.yaml").read_text(encoding="utf-8")
    said = project.cli("study", "promote")
    now = (project.folder / "params.yaml").read_text(encoding="utf-8")
    assert ("The baseline is kept" in said) == (now == before)
    (project.folder / "params.yaml").write_text(before, encoding="utf-8")


@pytest.mark.long
def test_the_glossary_explains_what_is_logged_and_nothing_else(project: Project) -> None:
    logged = json.loads(project.python(METRICS))
    assert [name for name in logged if explained(name) is None] == []
    assert set(GLOSSARY) - {explained(name) for name in logged} == set()


@pytest.mark.long
def test_the_notebooks_run_on_these_outputs(project: Project) -> None:
    notebooks = sorted((project.folder / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 3
    project.python(EXECUTE, *map(str, notebooks))


@pytest.mark.long
def test_a_clone_pulls_the_data_has_nothing_to_run_and_fills_its_mlflow_store(
    project: Project, tmp_path: Path
) -> None:
    project.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "results")
    project.dvc("push")
    clone = project.clone(tmp_path / "clone")
    clone.dvc("pull")
    assert "Data and pipelines are up to date" in clone.dvc("repro")
    said = clone.cli("track", "sync")
    assert "0 runs created" not in said
    assert "0 runs created, 0 got their evaluation" in clone.cli("track", "sync")


@pytest.mark.long
def test_an_experiment_runs_grpo_evaluate_and_report_and_all_views_show_its_numbers(
    project: Project,
) -> None:
    """Last, because it changes the project."""
    project.git("add", "--all")
    project.git("commit", "--quiet", "--allow-empty", "--message", "results before")
    accuracy = project.folder / "metrics" / "accuracy.json"
    before = json.loads(accuracy.read_text())["grpo"]["mean"]
    lines = project.dvc("exp", "run", "--set-param", "grpo.kl_beta=0.004").splitlines()
    ran = {line.split("'")[1] for line in lines if line.startswith("Running stage")}
    assert ran == {"grpo@1", "evaluate", "report"}
    after = json.loads(accuracy.read_text())["grpo"]["mean"]

    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    assert shown["metrics/accuracy.json"]["data"]["grpo"]["mean"] == after
    changed = json.loads(project.dvc("exp", "diff", "--all", "--json"))
    assert changed["params"]["params.yaml"]["grpo.kl_beta"] == {
        "old": 0.006,
        "new": 0.004,
        "diff": pytest.approx(-0.002),
    }
    found = changed["metrics"]["metrics/accuracy.json"]["grpo.mean"]
    assert (found["old"], found["new"]) == (before, after)
    assert found["diff"] == pytest.approx(after - before)
    with (project.folder / "plots" / "accuracy_over_shots.csv").open() as file:
        curve = [float(row["accuracy"]) for row in csv.DictReader(file) if row["method"] == "grpo"]
    assert len(curve) == 4
    assert sum(curve) / 4 == pytest.approx(after, abs=1e-5)
    project.dvc("plots", "show")
    assert "accuracy_over_shots.csv" in (project.folder / "dvc_plots" / "index.html").read_text()
