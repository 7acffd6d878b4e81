"""The space of the study: the baseline is part of it, and values become params."""

import difflib
from pathlib import Path

import pytest
from formula_trials import project_params
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from lever_plus.config.file import changed_params, load_params
from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Estimate
from lever_plus.experiments.study.promote import Candidate, accept
from lever_plus.experiments.study.settings import read_settings
from lever_plus.experiments.study.space import baseline, changes
from tiny_world import ROOT

SETTINGS = read_settings(ROOT / "search" / "params.yaml")
PARAMS = project_params()


def test_the_baseline_is_params_yaml_without_grpo() -> None:
    values = baseline(PARAMS, SETTINGS.space)
    assert values["epochs"] == 0
    changed = changed_params(PARAMS, changes(values, PARAMS, SETTINGS.space))
    assert (changed.rce, changed.reward, changed.rl) == (PARAMS.rce, PARAMS.reward, PARAMS.rl)


def test_values_become_params_and_weights_keep_their_sum() -> None:
    values = {
        **baseline(PARAMS, SETTINGS.space),
        "hard_share": 0.8,
        "shot_slope": 1.0,
        "tau_start": 0.2,
        "gen_methods": "beam+sample",
        "epochs": 3,
    }
    changed = changed_params(PARAMS, changes(values, PARAMS, SETTINGS.space))
    assert (changed.reward.hard, changed.reward.soft) == (1.6, 0.4)
    weights = changed.reward.shot_weights
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert weights[1] / weights[0] == pytest.approx(2.718, rel=1e-2)
    assert changed.rce.tau["rce"].end == 0.05
    assert changed.rl.filter_gen_methods == ["beam", "sample"]
    assert (changed.grpo.epochs, changed.grpo.rounds) == (3, 0)


def test_a_trial_is_rewarded_for_hard_and_soft_alone() -> None:
    """Whatever else params.yaml rewards, the space has no value for it."""
    other = changed_params(PARAMS, {"reward": {"soft": 0.0, "bias": 0.5}})
    values = {**baseline(PARAMS, SETTINGS.space), "hard_share": 0.25}
    for params in (PARAMS, other):
        changed = changed_params(params, changes(values, params, SETTINGS.space))
        assert changed.reward.model_dump(exclude_defaults=True) == {
            "hard": 0.5,
            "soft": 1.5,
            "clip": 5.0,
            "shot_weights": [0.25, 0.25, 0.25, 0.25],
        }


def test_a_space_without_the_project_s_own_values_is_refused() -> None:
    space = SETTINGS.space.model_copy(update={"tau_start": [9.0]})
    with pytest.raises(UserError, match=r"the baseline is\s+trial 0"):
        baseline(PARAMS, space)


def test_promotion_changes_its_own_lines_of_params_yaml_alone(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    values = {
        **baseline(PARAMS, SETTINGS.space),
        "hard_share": 0.8,
        "tau_start": 0.2,
        "gen_methods": "beam+sample",
        "epochs": 4,
        "learning_rate": 0.002,
    }
    trial = create_trial(
        params=values,
        distributions={name: CategoricalDistribution([value]) for name, value in values.items()},
        value=0.1,
    )
    estimate = Estimate(0.1, 0.05, 0.15, 0.001)
    accept(Candidate(trial, estimate, 0.5), PARAMS, SETTINGS, path)
    lines = difflib.ndiff(before.splitlines(), path.read_text(encoding="utf-8").splitlines())
    assert [line[2:].strip() for line in lines if line.startswith("+")] == [
        "hard: 1.6",
        "soft: 0.4",
        "filter_gen_methods: [beam, sample]",
        "rce: {start: 0.2, end: 0.05}",
        "epochs: 4 # passes over the candidates of a round",
        "learning_rate: 0.002",
        "rounds: 0",
    ]
    assert load_params(path).rce.tau["rce"].start == 0.2
