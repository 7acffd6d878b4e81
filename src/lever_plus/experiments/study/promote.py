"""Promotion: train the best trials again on fresh seeds, and accept one of them if it holds up.

The best of many trials looks better on dev than it is, for two reasons: its training runs went
well, and the dev questions suit it. Fresh training seeds, which no trial has seen, remove the first
reason. The second remains, because the questions are the same. The interval of each repeated trial
covers questions (whole images are resampled) and runs of RCE and GRPO from the one SFT policy and
RL data that all trials share (see `objective`). The questions' part of the interval is widened for
the number of all trials that compete, the training runs' part for the number of repeated trials
(Bonferroni; Dunn 1961). The best repeated trial is accepted if its KL is within the budget and its
interval is above zero. Otherwise the baseline is kept. The pipeline reads the test questions only
once, afterwards.
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
    """A trial that was trained again on fresh seeds.

    Attributes:
        trial: The trial.
        difference: Paired difference from the RCE-only policy, with its corrected interval.
        kl: KL to the RCE policy, nats per pointer, mean over seeds.
    """

    trial: FrozenTrial
    difference: Estimate
    kl: float

    def accepted(self, settings: StudySettings) -> bool:
        """Whether its interval is above zero and its KL is within the budget."""
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
            "no finished trial with GRPO is within the KL budget: run more trials (`lever-plus "
            "study run`), or raise kl_budget in search/params.yaml."
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
    """Write a trial's values into params.yaml, whose comments are kept; return the changes."""
    changed = changes(candidate.trial.params, params, settings.space)
    preset = path.with_name(".promoted.yaml")
    try:
        write_text(preset, dump_yaml(changed))
        overlay(path, preset)
    finally:
        preset.unlink(missing_ok=True)
    return changed
