"""Promotion: the best trials are trained again on fresh seeds, and one is taken if it holds up.

The best of many trials is an optimistic choice on dev. So the top ones are repeated with training
seeds that no trial has seen; the best of them is accepted if its KL keeps the budget and the 95 %
interval of its paired difference to RCE-only (over dev questions, seeds averaged) is above zero.
Otherwise the baseline stands. Test questions are read by the pipeline afterwards, once.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from ruamel.yaml import YAML

from lever_plus.config.file import changed_params, overlay
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Estimate, bootstrap
from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.record import best_trials
from lever_plus.experiments.study.settings import StudySettings, changes


class Candidate(NamedTuple):
    """A trial on fresh seeds.

    difference: paired difference to RCE-only with its interval; kl: nats a pointer.
    """

    trial: FrozenTrial
    difference: Estimate
    kl: float

    def accepted(self, settings: StudySettings) -> bool:
        """Whether it is better for sure, and near enough."""
        return self.difference.low > 0 and self.kl <= settings.kl_budget


def repeat_best(
    study: optuna.Study, params: Params, settings: StudySettings, trials: Trials
) -> list[Candidate]:
    """Train the best feasible trials on the fresh seeds.

    Raises:
        UserError: No trial is feasible.
    """
    found = best_trials(study, settings.top)
    if not found:
        raise UserError(
            "no finished trial keeps the KL budget: run more trials (`lever-plus study run`), or "
            "raise kl_budget in search/params.yaml."
        )
    return [_repeat(trial, params, settings, trials) for trial in found]


def _repeat(
    trial: FrozenTrial, params: Params, settings: StudySettings, trials: Trials
) -> Candidate:
    changed = changed_params(params, changes(trial.params, params, settings.space))
    epochs = int(trial.params["epochs"])
    measured = [
        trials.measure(changed, epochs, seed, lambda _epoch, _row: None)
        for seed in settings.fresh_seeds
    ]
    differences = np.mean([m.difference for m in measured], axis=0)
    estimate = bootstrap(differences, params.evaluate.resamples)
    return Candidate(trial, estimate, float(np.mean([m.kl for m in measured])))


def accept(
    candidate: Candidate, params: Params, settings: StudySettings, path: Path
) -> dict[str, Any]:
    """Write a trial's values into params.yaml, keeping its comments; return what was changed."""
    changed = changes(candidate.trial.params, params, settings.space)
    preset = path.with_name(".promoted.yaml")
    try:
        with preset.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(changed, file)
        overlay(path, preset)
    finally:
        preset.unlink(missing_ok=True)
    return changed
