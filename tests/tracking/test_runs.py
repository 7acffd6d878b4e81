"""MLflow shows what the files hold: live, afterwards, and the same when synced twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from lever_plus.config.params import Params
from lever_plus.tracking.history import History
from lever_plus.tracking.runs import flatten, live_run, sync
from lever_plus.tracking.store import EXPERIMENT, tracking_uri
from lever_plus.tracking.training_run import TrainingRun, md5
from lever_plus.training.trainer import Observe

pytestmark = pytest.mark.slow
ROWS = [{"step": 0, "dev_reward": 0.5}, {"step": 7, "kl": 0.25, "dev_reward": 0.75}]


def _row(method: str, shots: int, first: float, second: float) -> dict[str, Any]:
    """Return a row of two seeds."""
    mean = (first + second) / 2
    return {
        "method": method,
        "shots": shots,
        "accuracy": mean,
        "ci95": [first, second],
        "seed_accuracies": [first, second],
    }


SUMMARY = {
    "rows": [
        _row("random", 1, 0.2, 0.4),
        _row("grpo", 1, 0.6, 0.8),
        _row("grpo", 2, 0.7, 0.9),
    ],
    "means": [
        {"method": "grpo", "accuracy": 0.75, "ci95": [0.7, 0.8], "seed_accuracies": [0.65, 0.85]}
    ],
    "differences": [
        {
            "method": "grpo",
            "versus": "rce",
            "shots": "mean",
            "difference": 0.1,
            "ci95": [0.05, 0.15],
        }
    ],
}


def of_one_seed(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary whose methods have only their first seed."""
    parts = {
        part: [{**row, "seed_accuracies": row["seed_accuracies"][:1]} for row in summary[part]]
        for part in ("rows", "means")
    }
    return {**summary, **parts}


def all_runs(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id]))


def grpo(tmp_path: Path, seed: int) -> TrainingRun:
    return TrainingRun("grpo", "grpo", seed, tmp_path / f"seed{seed}" / "history.jsonl")


def train(params: Params, run: TrainingRun) -> None:
    with live_run(params, run) as observe:
        write(run, observe)


def write(run: TrainingRun, observe: Observe = lambda _row: None) -> None:
    """Write what a training stage leaves behind."""
    with History(run.history, observe) as history:
        for row in ROWS:
            history.write({**row, "seed": run.seed})
    run.checkpoint.write_text(f"weights of seed {run.seed}")


def test_a_live_run_has_params_tags_and_traces(client: Any, params: Params, tmp_path: Path) -> None:
    train(params, grpo(tmp_path, 1))
    (run,) = all_runs(client)
    assert run.info.run_name == "grpo/grpo/seed1"
    assert run.info.status == "FINISHED"
    assert run.data.params["grpo.kl_beta"] == str(params.grpo.kl_beta)
    assert run.data.tags["pipeline.method"] == "grpo"
    assert "git.commit" in run.data.tags
    points = client.get_metric_history(run.info.run_id, "dev/reward")
    assert [(p.step, p.value) for p in points] == [(0, 0.5), (7, 0.75)]
    assert client.get_metric_history(run.info.run_id, "train/kl")[0].step == 7


def test_sync_makes_what_is_missing_and_nothing_twice(
    client: Any, params: Params, tmp_path: Path
) -> None:
    runs = [grpo(tmp_path, 1), grpo(tmp_path, 2)]
    train(params, runs[0])
    write(runs[1])
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    assert sync(params, runs, summary, tmp_path / "usage") == (
        1,
        3,
        0,
    )  # a run for seed 2; grpo twice and random
    assert sync(params, runs, summary, tmp_path / "usage") == (0, 0, 0)
    assert len(all_runs(client)) == 3


def test_the_evaluation_goes_to_the_run_of_its_checkpoint(
    client: Any, params: Params, tmp_path: Path
) -> None:
    runs = [grpo(tmp_path, 1), grpo(tmp_path, 2)]
    for run in runs:
        train(params, run)
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    sync(params, runs, summary, tmp_path / "usage")
    by_name = {run.info.run_name: run for run in all_runs(client)}
    metrics = by_name["grpo/grpo/seed2"].data.metrics
    assert metrics["eval/acc/shot_01"] == 0.8
    assert metrics["eval/acc/mean"] == 0.85
    assert metrics["delta/vs_rce"] == 0.1
    run_id = by_name["grpo/grpo/seed1"].info.run_id
    curve = client.get_metric_history(run_id, "curve/acc")
    assert [(p.step, p.value) for p in curve] == [(1, 0.6), (2, 0.7)]
    assert by_name["evaluate/random"].data.metrics["eval/acc/shot_01"] == pytest.approx(0.3)


def test_accuracies_go_to_their_seed_whatever_the_order_of_params_is(
    client: Any, params: Params, tmp_path: Path
) -> None:
    """The summary has seeds in ascending order; if some are missing, nothing is guessed."""
    runs = [grpo(tmp_path, 2), grpo(tmp_path, 1)]
    train(params, runs[0])  # seed 1 is not there
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    assert sync(params, runs, summary, tmp_path / "usage") == (0, 2, 0)
    (run,) = (run for run in all_runs(client) if run.info.run_name == "grpo/grpo/seed2")
    assert run.data.metrics["eval/acc/mean"] == 0.85
    with pytest.warns(UserWarning, match="grpo was evaluated with other seeds"):
        assert sync(params, runs[:1], summary, tmp_path / "usage") == (0, 0, 0)


def test_a_training_that_is_repeated_to_the_byte_gets_the_evaluation_too(
    client: Any, params: Params, tmp_path: Path
) -> None:
    run, summary = grpo(tmp_path, 1), tmp_path / "summary.json"
    summary.write_text(json.dumps(of_one_seed(SUMMARY)))
    for _ in range(2):
        train(params, run)
        sync(params, [run], summary, tmp_path / "usage")
    assert sync(params, [run], summary, tmp_path / "usage") == (0, 0, 0)
    both = [run for run in all_runs(client) if run.info.run_name == "grpo/grpo/seed1"]
    assert [run.data.metrics["eval/acc/mean"] for run in both] == [0.65, 0.65]


def test_a_training_under_way_is_not_taken_for_one_that_has_ended(
    client: Any, params: Params, tmp_path: Path
) -> None:
    run, nothing = grpo(tmp_path, 1), tmp_path / "nothing"
    with live_run(params, run) as observe:
        with History(run.history, observe) as history:
            history.write({**ROWS[0], "seed": 1})
            assert sync(params, [run], nothing, nothing) == (0, 0, 0)
        run.checkpoint.write_bytes(b"")
    assert sync(params, [run], nothing, nothing) == (0, 0, 0)
    assert [run.info.status for run in all_runs(client)] == ["FINISHED"]


def test_a_run_that_breaks_is_marked_failed(client: Any, params: Params, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), live_run(params, grpo(tmp_path, 1)):
        raise RuntimeError("boom")
    assert all_runs(client)[0].info.status == "FAILED"


def test_training_goes_on_where_mlflow_is_not_reachable(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'x.db'}")
    with pytest.warns(UserWarning, match="track sync"):
        train(params, grpo(tmp_path, 1))
    assert grpo(tmp_path, 1).history.is_file()


def test_the_store_is_in_the_project_s_root_even_in_dvc_s_temporary_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", "/somewhere")
    assert tracking_uri() == "sqlite:////somewhere/mlflow.db"
    monkeypatch.delenv("DVC_ROOT")
    assert tracking_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_params_are_flattened() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_what_a_stage_s_answers_cost_is_logged_once(
    client: Any, params: Params, tmp_path: Path
) -> None:
    usage = tmp_path / "usage"
    (usage / "rl_data").mkdir(parents=True)
    figures = {"scoring/requests": 60, "scoring/store_hits": 20, "scoring/tokens_saved": 0.5}
    for name in ("evaluate", "rl_data/seed1", "rl_data/seed2"):
        (usage / f"{name}.json").write_text(json.dumps(figures))
    for _ in range(2):
        sync(params, [], tmp_path / "no-summary.json", usage)
        runs = all_runs(client)
        named = {run.info.run_name: run.data.tags.get("pipeline.seed") for run in runs}
        assert named == {
            "evaluate/scoring": None,
            "rl_data/scoring/seed1": "1",
            "rl_data/scoring/seed2": "2",
        }
    for run in runs:
        assert {k: v for k, v in run.data.metrics.items() if k in figures} == figures


def test_a_training_run_has_its_scoring_figures(
    client: Any, params: Params, tmp_path: Path
) -> None:
    """Facts about this machine go to the run, and not to the history, which is a DVC out."""
    run = grpo(tmp_path, 1)
    with live_run(params, run) as observe:
        with History(run.history, observe) as history:
            history.write(ROWS[0])
        observe({"step": 0, "scoring/store_hits": 3})
    (logged,) = all_runs(client)
    assert logged.data.metrics["scoring/store_hits"] == 3
    assert "scoring" not in run.history.read_text()


def test_a_run_names_its_data_and_its_checkpoint_by_their_dvc_hashes(
    client: Any, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    deps = "['artifacts/rl_data/seed${item.seed}', src/x.py]"
    (tmp_path / "dvc.yaml").write_text(f"stages: {{grpo: {{deps: {deps}}}}}")
    of_seed = "rl_data@{0}: {{outs: [{{path: artifacts/rl_data/seed{0}, md5: abc{0}.dir}}]}}"
    lock = f"stages: {{{of_seed.format(1)}, {of_seed.format(2)}}}"
    (tmp_path / "dvc.lock").write_text(lock)
    run, after = grpo(tmp_path, 2), grpo(tmp_path, 3)
    train(params, run)
    write(after)
    nothing = tmp_path / "nothing"
    assert sync(params, [run, after], nothing, nothing).made == 1
    logged = {each.info.run_name: each for each in all_runs(client)}
    ((dataset,),) = ([i.dataset for i in logged[run.name].inputs.dataset_inputs],)
    assert (dataset.name, dataset.digest) == ("artifacts/rl_data/seed2", "abc2.dir")
    for each in (run, after):
        tags = logged[each.name].data.tags
        assert tags["dvc.path"] == str(each.checkpoint)
        assert tags["dvc.md5"] == md5(each.checkpoint)
        assert tags["mlflow.note.content"].startswith("Reproduce: `git checkout ")


def test_variants_are_evaluated_apart_from_the_pipeline_s_runs(
    client: Any, params: Params, tmp_path: Path
) -> None:
    """A variant has runs of the same methods; they must not get the pipeline's numbers."""
    variant = TrainingRun("ablation/few", "grpo", 1, tmp_path / "few" / "history.jsonl")
    runs = [grpo(tmp_path, 1), grpo(tmp_path, 2), variant]
    for run in runs:
        train(params, run)
    summary, ablations = tmp_path / "summary.json", tmp_path / "ablations.json"
    summary.write_text(json.dumps(SUMMARY))
    difference = {"difference": -0.2, "ci95": [-0.3, -0.1], "separable": True}
    one = {**_row("grpo", 1, 0.4, 0.6), "seed_accuracies": [0.4]}
    row = {**one, "variant": "few", "versus": "default/grpo"}
    ablations.write_text(json.dumps({"rows": [{**row, "difference": difference}]}))
    assert sync(params, runs, summary, tmp_path / "usage", ablations) == (0, 4, 0)
    assert sync(params, runs, summary, tmp_path / "usage", ablations) == (0, 0, 0)
    by_name = {run.info.run_name: run.data.metrics for run in all_runs(client)}
    few = by_name["ablation/few/grpo/seed1"]
    assert few["eval/acc/mean"] == 0.4
    assert few["delta/vs_default_grpo"] == -0.2
    assert "eval/acc/shot_01" not in few
    assert by_name["grpo/grpo/seed2"]["eval/acc/mean"] == 0.85
