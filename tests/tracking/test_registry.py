"""The model registry: every selector once, the champion until somebody names another."""

from pathlib import Path
from typing import Any

import pytest
from test_kills import save, trainings
from test_runs import write

from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.tracking.registry import CHAMPION, MODEL, Registry, Save, Selectors
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


@pytest.mark.slow
def test_of_two_machines_that_register_at_once_the_first_stays(
    client: Any, params: Params, runs: list[TrainingRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither has seen the other's version before it creates its own."""
    synced(params, runs)
    first = champion(client).version
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "holds", lambda *_: False)
        assert synced(params, runs).registered == 2
    assert versions(client) == [1, 2]
    assert champion(client).version == first


@pytest.mark.slow
def test_a_training_that_is_repeated_to_the_byte_is_the_same_version(
    client: Any, params: Params, runs: list[TrainingRun]
) -> None:
    synced(params, runs)
    runs[0].history.write_text(runs[0].history.read_text().replace("0.75", "0.875"))
    assert synced(params, runs) == (1, 0, 0)
    assert versions(client) == [1, 2]
