"""Promotion: the best trials are trained again on fresh seeds, and one is taken if it holds up.

The best of many trials is an optimistic choice on dev: of training runs that went well, and of dev
questions that suit it. Fresh training seeds, which no trial has seen, take the first away. The
second stays, for the questions are the same. The interval of each repeated trial covers questions,
images taken whole, and runs of RCE and GRPO from the one SFT policy and RL data that all trials
share (see `objective`). Its part of questions is widened for the number of all trials that the
choice was made among, its part of training runs for those that are repeated (Bonferroni; Dunn
1961). The best repeated trial is accepted if its KL keeps the budget and its interval is above
zero. Otherwise the baseline stands. Test questions are read by the pipeline afterwards, once.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from lever_plus.config.file import changed_params, overlay
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.statistics import Estimate
from lever_plus.evaluation.trainings import over_runs
from lever_plus.experiments.study.fingerprint import check_made_with, made_with
from lever_plus.experiments.study.objective import Trials
from lever_plus.experiments.study.record import best_trials, competing
from lever_plus.experiments.study.settings import StudySettings
from lever_plus.experiments.study.space import changes, check_space
from lever_plus.experiments.study.trials import check_trials
from lever_plus.files.writing import write_text
from lever_plus.files.yaml_files import dump_yaml


class Candidate(NamedTuple):
    """A trial on fresh seeds.

    difference: paired difference to RCE-only with its corrected interval; kl: nats a pointer.
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
        UserError: No trial is feasible, or the study was made with other settings or data.
    """
    check_space(params, settings.space)
    check_trials(study, settings.space)
    check_made_with(study, made_with(params, settings, trials.sources(settings.seeds)))
    found = best_trials(study, settings.top)
    if not found:
        raise UserError(
            "no finished trial keeps the KL budget: run more trials (`lever-plus study run`), or "
            "raise kl_budget in search/params.yaml."
        )
    among = len(competing(study))
    return [_repeat(trial, params, settings, trials, among, len(found)) for trial in found]


def _repeat(
    trial: FrozenTrial,
    params: Params,
    settings: StudySettings,
    trials: Trials,
    among: int,
    repeated: int,
) -> Candidate:
    changed = changed_params(params, changes(trial.params, params, settings.space))
    epochs = int(trial.params["epochs"])
    measured = [
        trials.measure(changed, epochs, seed, lambda _epoch, _row: None)
        for seed in settings.fresh_seeds
    ]
    differences = np.stack([m.difference for m in measured])
    estimate = over_runs(differences, trials.dev_images, among, repeated)
    return Candidate(trial, estimate, float(np.mean([m.kl for m in measured])))


def accept(
    candidate: Candidate, params: Params, settings: StudySettings, path: Path
) -> dict[str, Any]:
    """Write a trial's values into params.yaml, keeping its comments; return what was changed."""
    changed = changes(candidate.trial.params, params, settings.space)
    preset = path.with_name(".promoted.yaml")
    try:
        write_text(preset, dump_yaml(changed))
        overlay(path, preset)
    finally:
        preset.unlink(missing_ok=True)
    return changed
