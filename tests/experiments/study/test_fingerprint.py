"""A study continues if nothing changes its trials, and stops and names it if something does."""

from pathlib import Path
from typing import Any, cast

import pytest
from formula_trials import FormulaTrials, project_params, settings

from lever_plus.config.file import changed_params
from lever_plus.errors import UserError
from lever_plus.experiments.study.fingerprint import MADE_WITH, check_made_with, made_with
from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.storage import open_study
from lever_plus.experiments.study.worker import run_worker

PARAMS = project_params()
SETTINGS = settings("unused")
TAUS = {name: tau.model_dump() for name, tau in PARAMS.rce.tau.items()}
SPACE = SETTINGS.space


def kept(params: dict[str, Any] | None = None, **update: Any) -> dict[str, Any]:
    changed = changed_params(PARAMS, params or {})
    return made_with(changed, SETTINGS.model_copy(update=update), {"data": "1"})


@pytest.mark.parametrize(
    "params",
    [
        {"threads": 7},
        {"seed": 9},
        {"training_seeds": [1, 2, 3, 4]},
        {"scoring": {"store": "elsewhere.sqlite", "executor": "ray"}},
        {"vlm": {"workers": 1, "device": "cuda"}},
        {"agro": {"beta": 1.0, "epochs": 9}},
        {"sft": {"epochs": 3}},
        {"evaluate": {"resamples": 500}},
        {"grpo": {"epochs": 9, "learning_rate": 0.1, "kl_beta": 0.5, "rounds": 1, "group_size": 9}},
        {"rl": {"min_informative": 0.5}},
        {
            "rce": {"tau": {**TAUS, "rce-seed": {"start": 9.0, "end": 9.0}}},
            "grpo": {"start": "rce"},
        },
        {"rce": {"tau": {"mine": TAUS["rce"]}}, "grpo": {"start": "mine"}},
    ],
    ids=str,
)
def test_what_changes_no_trial_is_free(params: dict[str, Any]) -> None:
    assert kept(params) == kept()


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"grpo": {"clip_low": 0.1}}, "grpo.clip_low"),
        ({"grpo": {"credit": "total"}}, "grpo.credit"),
        ({"grpo": {"weight_decay": 0.5}}, "grpo.weight_decay"),
        ({"rce": {"epochs": 9}}, "rce.epochs"),
        ({"rce": {"tau": {**TAUS, "rce": {"start": 0.4, "end": 0.2}}}}, "rce.tau"),
        ({"reward": {"clip": 1.0}}, "reward.clip"),
        ({"rl": {"filter_gen_methods": ["beam"]}}, "rl.filter_gen_methods"),
        (
            {"pointer": {"shots": 2}, "reward": {"shot_weights": [0.5, 0.5]}},
            "pointer.shots",
        ),
    ],
)
def test_what_changes_trials_is_named(tmp_path: Path, params: dict[str, Any], name: str) -> None:
    study = open_study(settings(str(tmp_path / "study.journal")))
    study.set_user_attr(MADE_WITH, kept())
    with pytest.raises(UserError, match=rf"{name} was .* and is now .*Undo that, or give"):
        check_made_with(study, kept(params))


@pytest.mark.parametrize(
    "update",
    [
        *({"trials": 99}, {"workers": 9}, {"sampler_seed": 9}, {"startup_trials": 1}),
        *({"stale_seconds": 9.0}, {"storage": "b.journal"}, {"top": 1}, {"fresh_seeds": [8, 9]}),
        {"name": "other"},
    ],
    ids=str,
)
def test_how_a_study_is_run_is_free(update: dict[str, Any]) -> None:
    assert kept(**update) == kept()


@pytest.mark.parametrize(
    ("update", "name"),
    [
        ({"seeds": [1, 3]}, "seeds"),
        ({"kl_budget": 9.0}, "kl_budget"),
        ({"space": SPACE.model_copy(update={"epochs": 3})}, "space.epochs"),
        ({"space": SPACE.model_copy(update={"tau_start": [0.4]})}, "space.tau_start"),
        (
            {
                "space": SPACE.model_copy(
                    update={"gen_methods": dict(reversed(SPACE.gen_methods.items()))}
                )
            },
            "space.gen_methods",
        ),
    ],
    ids=str,
)
def test_another_space_or_other_seeds_are_named(
    tmp_path: Path, update: dict[str, Any], name: str
) -> None:
    study = open_study(settings(str(tmp_path / "study.journal")))
    study.set_user_attr(MADE_WITH, kept())
    with pytest.raises(UserError, match=f"{name} was "):
        check_made_with(study, kept(**update))


def test_a_setting_that_counts_no_longer_keeps_studies_usable(tmp_path: Path) -> None:
    study = open_study(settings(str(tmp_path / "study.journal")))
    study.set_user_attr(MADE_WITH, {**kept(), "once.counted": 1})
    check_made_with(study, kept())


def test_a_study_of_unknown_origin_is_not_joined(tmp_path: Path) -> None:
    study = open_study(settings(str(tmp_path / "study.journal")))
    study.tell(study.ask(), 1.0)
    with pytest.raises(UserError, match="by another program or an earlier version"):
        check_made_with(study, kept())


def test_a_worker_stops_once_the_study_is_another_one(tmp_path: Path) -> None:
    """Of two workers that begin a study at once with different settings, only one continues."""
    found = settings(str(tmp_path / "study.journal"), trials=4)

    class Overtaken(FormulaTrials):
        def measure(self, *arguments: Any) -> Any:
            open_study(found).set_user_attr(MADE_WITH, {**kept(), "seeds": [5]})
            return super().measure(*arguments)

    with pytest.raises(UserError, match="seeds was \\[5\\] and is now \\[1, 2\\]"):
        run_worker(PARAMS, found, cast(Trials, Overtaken()))
