"""The space of the study: the baseline lies in it, and values become params."""

import pytest
from formula_trials import project_params

from lever_plus.errors import UserError
from lever_plus.params_file import changed_params
from lever_plus.study.settings import baseline, changes, read_settings
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
    assert (changed.reward.hard_weight, changed.reward.soft_weight) == (1.6, 0.4)
    weights = changed.reward.shot_weights
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert weights[1] / weights[0] == pytest.approx(2.718, rel=1e-2)
    assert changed.rce.tau["rce"].end == 0.05
    assert changed.rl.filter_gen_methods == ["beam", "sample"]
    assert (changed.grpo.epochs, changed.grpo.rounds) == (3, 0)


def test_a_space_without_the_project_s_own_values_is_refused() -> None:
    space = SETTINGS.space.model_copy(update={"tau_start": [9.0]})
    with pytest.raises(UserError, match="the baseline is trial 0"):
        baseline(PARAMS, space)
