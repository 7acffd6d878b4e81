"""Checks that every finished trial is complete before anything is concluded from it."""

import math
from typing import Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from lever_plus.errors import UserError
from lever_plus.experiments.study.liveness import AGAIN, ALIVE
from lever_plus.experiments.study.settings import Space

KL: Final = "kl"
"""Name of the constraint, and of the attribute that shows it."""


def check_trials(study: optuna.Study, space: Space) -> None:
    """Refuse a study with an incomplete or contradictory trial.

    Raises:
        UserError: A trial is wrong; the message names it.
    """
    for trial in study.get_trials(deepcopy=False):
        if why := _wrong(trial, space):
            raise UserError(
                f"study {study.study_name}: trial {trial.number} {why}, so another program wrote "
                "it, or the storage is damaged: restore the storage from a copy, or give the new "
                "study another name (search/params.yaml)."
            )


def _wrong(trial: FrozenTrial, space: Space) -> str:
    again = trial.user_attrs.get(AGAIN)
    if again is not None and (type(again) is not int or not 0 <= again < trial.number):
        return f"repeats trial {again!r}"
    alive = trial.user_attrs.get(ALIVE, 0.0)
    if type(alive) not in (int, float) or not math.isfinite(alive):
        return f"gave its last sign of life at {alive!r:.60}, which is not a time"
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return ""
    known = set(type(space).model_fields)
    if known != set(trial.params):
        return f"does not have the values of the space ({min(known ^ set(trial.params))})"
    if not 0 <= trial.params["epochs"] <= space.epochs:
        return f"has {trial.params['epochs']} epochs, which the space does not allow"
    if trial.params["gen_methods"] not in space.gen_methods:
        return f"has gen_methods {trial.params['gen_methods']!r}, which the space does not have"
    if trial.state == TrialState.COMPLETE and not (
        trial.values and len(trial.values) == 1 and math.isfinite(trial.values[0])
    ):
        return f"ended with {trial.values}, which is not a result"
    if trial.state == TrialState.COMPLETE and KL not in trial.constraints:
        return "ended without a KL"
    return ""
