"""The model registry: every selector once, the champion until somebody names another."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_kills import save, trainings
from test_runs import SUMMARY, write

from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.tracking.checkpoints import checkpoint_tags
from lever_plus.tracking.makers import (
    ALIVE,
    DELETE,
    ENDED,
    MAKER,
    STATE,
    name_process,
    opening_tags,
)
from lever_plus.tracking.registry import CHAMPION, LOGGED, MODEL, Registry, Save, Selectors
from lever_plus.tracking.runs import Synced, sync
from lever_plus.tracking.store import Store
from lever_plus.tracking.training_run import TrainingRun, md5


@pytest.fixture
def runs(tmp_path: Path) -> list[TrainingRun]:
    for run in trainings(tmp_path):
        write(run)
    return trainings(tmp_path)


def synced(params: Params, runs: list[TrainingRun], how: Save = save) -> Synced:
    nothing = Path("nothing")
    return sync(params, runs, nothing, nothing, selectors=Selectors(runs, runs[0], how))


def champion(client: Any) -> Any:
    return client.get_model_version_by_alias(MODEL, CHAMPION)


def versions(client: Any) -> list[int]:
    return sorted(int(each.version) for each in client.search_model_versions(f"name = '{MODEL}'"))


@pytest.mark.slow
def test_a_version_says_which_training_it_is(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    assert synced(params, runs) == (2, 0, 2)
    found = champion(client)
    (run,) = (r for r in Store().runs("") if r.info.run_name == runs[0].name)
    assert found.run_id == run.info.run_id
    assert found.tags["pipeline.method"] == "grpo"
    assert found.tags["dvc.md5"] == md5(runs[0].checkpoint) == run.data.tags["dvc.md5"]


def test_whoever_names_another_champion_decides_until_it_is_trained_anew(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    synced(params, runs)
    (other,) = {1, 2} - {int(champion(client).version)}
    client.set_registered_model_alias(MODEL, CHAMPION, str(other))
    assert synced(params, runs).registered == 0
    assert int(champion(client).version) == other
    runs[0].checkpoint.write_text("weights of another training")
    runs[0].history.write_text(runs[0].history.read_text().replace("0.75", "0.875"))
    assert synced(params, runs) == (1, 0, 1)
    assert champion(client).tags["dvc.md5"] == md5(runs[0].checkpoint)
    assert versions(client) == [1, 2, 3]


@pytest.mark.slow
def test_a_model_that_cannot_be_written_is_warned_of_and_the_rest_is_made(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    def without_first(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        if run.seed == 1:
            raise UserError("image gone.png is missing: run `dvc checkout`.")
        save(run, path, run_id, model_id)

    with pytest.warns(UserWarning, match=r"grpo/grpo/seed1 is not in the .* gone\.png is missing"):
        assert synced(params, runs, without_first) == (2, 0, 1)
    assert synced(params, runs) == (0, 0, 1)
    assert champion(client).tags["pipeline.seed"] == "1"


def test_a_policy_that_is_trained_anew_meanwhile_is_no_version(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    def changed(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        save(run, path, run_id, model_id)
        run.checkpoint.write_text(f"other weights of seed {run.seed}")

    assert synced(params, runs, changed).registered == 0
    assert versions(client) == []


def run_ids() -> dict[str, str]:
    return {run.info.run_name: run.info.run_id for run in Store().runs("")}


def test_of_two_machines_that_register_one_after_the_other_the_first_stays(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    """The second has not seen the first one's version before it creates its own."""
    synced(params, runs)
    first = champion(client)
    assert not Registry(Store()).register(runs[0], first.run_id, save)
    assert versions(client) == [1, 2]
    assert champion(client).version == first.version
    (kept,) = Store().models(first.run_id, md5(runs[0].checkpoint))
    assert kept.model_id == first.tags[LOGGED]


def elsewhere(client: Any, run: TrainingRun, run_id: str) -> Any:
    """Create the logged model of another machine that has just begun to fill it."""
    name = json.dumps({**name_process(), "machine": "another"})
    tags = {**run.tags, **checkpoint_tags(run), **opening_tags(DELETE), MAKER: name}
    return client.create_logged_model(Store().experiment, "theirs", run_id, tags=tags)


def test_a_model_that_another_machine_fills_is_left_to_it_until_its_machine_is_gone(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    """Two that write the same files at once would mix them."""
    nothing = Path("nothing")
    sync(params, runs, nothing, nothing)
    run_id = run_ids()[runs[0].name]
    theirs = elsewhere(client, runs[0], run_id)
    written: list[str] = []

    def noted(run: TrainingRun, path: Path, run_id: str, model_id: str) -> None:
        written.append(model_id)
        save(run, path, run_id, model_id)

    assert synced(params, runs, noted) == (0, 0, 1)
    assert len(written) == 1
    assert theirs.model_id not in written
    (left,) = Store().models(run_id, md5(runs[0].checkpoint))
    assert left.model_id == theirs.model_id
    client.set_logged_model_tags(theirs.model_id, {ALIVE: "0"})
    assert synced(params, runs, noted) == (0, 0, 1)
    (left,) = Store().models(run_id, md5(runs[0].checkpoint))
    assert left.model_id == written[-1] == champion(client).tags[LOGGED]
    assert left.tags[STATE] == ENDED


@pytest.mark.parametrize("theirs_is_older", [True, False])
def test_of_two_machines_that_create_a_model_at_once_the_older_one_is_filled(
    theirs_is_older: bool,
    client: Any,
    params: Params,
    runs: list[TrainingRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither has seen the other's before it creates its own."""
    nothing = Path("nothing")
    sync(params, runs, nothing, nothing)
    run_id = run_ids()[runs[0].name]
    store = Store()
    created = store.client.create_logged_model

    def at_once(*args: Any, **named: Any) -> Any:
        if theirs_is_older:
            elsewhere(client, runs[0], run_id)
            time.sleep(0.01)
            return created(*args, **named)
        made = created(*args, **named)
        time.sleep(0.01)
        elsewhere(client, runs[0], run_id)
        return made

    monkeypatch.setattr(store.client, "create_logged_model", at_once)
    assert Registry(store).register(runs[0], run_id, save) is not theirs_is_older
    left = [model.name for model in Store().models(run_id, md5(runs[0].checkpoint))]
    assert left == (["theirs"] if theirs_is_older else ["grpo-seed1", "theirs"])


@pytest.mark.slow
def test_a_training_that_is_repeated_to_the_byte_is_the_same_version(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    synced(params, runs)
    runs[0].history.write_text(runs[0].history.read_text().replace("0.75", "0.875"))
    assert synced(params, runs) == (1, 0, 0)
    assert versions(client) == [1, 2]


def evaluated(folder: Path, params: Params, runs: list[TrainingRun], how: Save = save) -> Synced:
    summary = folder / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    return sync(params, runs, summary, folder / "usage", selectors=Selectors(runs, runs[0], how))


def figures(client: Any) -> list[set[tuple[str, int, float]]]:
    """Return the metrics (name, step, value) of each version's logged model, by seed."""
    found = client.search_model_versions(f"name = '{MODEL}'")
    found = sorted(found, key=lambda version: version.tags["pipeline.seed"])
    models = [client.get_logged_model(version.tags[LOGGED]) for version in found]
    return [{(m.key, m.step, m.value) for m in model.metrics or ()} for model in models]


FIGURES = [{("curve/acc", 1, 0.6), ("curve/acc", 2, 0.7)}, {("curve/acc", 1, 0.8)}]


def check_figures(client: Any) -> None:
    first, second = figures(client)
    assert first >= FIGURES[0]
    assert second >= FIGURES[1]


def test_a_model_has_its_figures_though_mlflow_was_stopped_between_its_run_and_it(
    client: Any, params: Params, runs: list[TrainingRun], tmp_path: Path, monkeypatch: Any
) -> None:
    """MLflow writes the figures of a run, and then, in another transaction, those of its model."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    written = SqlAlchemyStore._log_model_metrics

    def stopped(self: Any, run_id: str, metrics: list[Any], *args: Any, **named: Any) -> None:
        if any(metric.model_id for metric in metrics):
            raise RuntimeError("killed")
        written(self, run_id, metrics, *args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(SqlAlchemyStore, "_log_model_metrics", stopped)
        with pytest.raises(UserError, match="killed"):
            evaluated(tmp_path, params, runs)
    assert figures(client) == [set(), set()]
    assert evaluated(tmp_path, params, runs) == (0, 2, 0)
    check_figures(client)
    for run in Store().runs("tags.`pipeline.stage` = 'grpo'"):
        for metric in ("curve/acc", "eval/acc/mean"):
            points = [point.step for point in Store().history(run.info.run_id, metric)]
            assert len(points) == len(set(points)), "a figure is in its run twice"
    assert evaluated(tmp_path, params, runs) == (0, 0, 0)


def test_a_model_that_is_registered_later_gets_the_figures_of_its_run(
    client: Any, params: Params, runs: list[TrainingRun], tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    assert sync(params, runs, summary, tmp_path / "usage") == (2, 3, 0)
    assert evaluated(tmp_path, params, runs) == (0, 2, 2)
    check_figures(client)
    assert evaluated(tmp_path, params, runs) == (0, 0, 0)
