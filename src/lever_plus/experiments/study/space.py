"""The search space and params.yaml: the baseline's values, and what a trial's values change."""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from lever_plus.config.base import SMALLEST
from lever_plus.config.file import changed_params
from lever_plus.config.names import GRPO, RCE
from lever_plus.config.offline import TauSchedule
from lever_plus.config.params import Params
from lever_plus.config.reward import WEIGHTS
from lever_plus.errors import UserError
from lever_plus.experiments.study.settings import Space, Values

SPANS: Final = ("learning_rate", "kl_beta", "hard_share", "shot_slope")


def first_tau(params: Params) -> tuple[str, TauSchedule]:
    """Return the name and schedule of the RCE method that trials start from.

    Raises:
        UserError: params.yaml has no schedule.
    """
    for name, schedule in params.rce.tau.items():
        return name, schedule
    raise UserError("params.yaml: rce.tau has no schedule, but a study starts from the first one.")


def baseline(params: Params, space: Space) -> dict[str, Any]:
    """Return the values of the RCE-only baseline: params.yaml without GRPO.

    If a value of params.yaml is outside the space, the nearest one is returned; the baseline is
    measured with params.yaml itself.

    Raises:
        UserError: The space lacks a choice that params.yaml makes.
    """
    tau = first_tau(params)[1]
    methods = params.rl.filter_gen_methods
    wanted = None if methods is None else sorted(methods)
    named = next(
        (n for n, m in space.gen_methods.items() if (m if m is None else sorted(m)) == wanted), None
    )
    if tau.start not in space.tau_start or named is None:
        raise UserError(
            "search/params.yaml: space.tau_start and space.gen_methods must contain the rce.tau "
            f"start ({tau.start}) and the rl.filter_gen_methods ({methods}) of params.yaml: the "
            "baseline is trial 0."
        )
    reward, shots = params.reward, params.reward.shot_weights
    share = reward.hard / (reward.hard + reward.soft) if reward.hard + reward.soft else 0.5
    rises = math.log(shots[-1] / shots[0]) / max(1, len(shots) - 1) if min(shots) > 0 else 0.0
    nearest = {
        "learning_rate": params.grpo.learning_rate,
        "kl_beta": params.grpo.kl_beta,
        "hard_share": share,
        "shot_slope": rises,
    }
    spans = {name: getattr(space, name) for name in SPANS}
    inside = {n: min(max(value, spans[n].low), spans[n].high) for n, value in nearest.items()}
    return {**inside, "epochs": 0, "tau_start": tau.start, "gen_methods": named}


def check_space(params: Params, space: Space) -> None:
    """Refuse a space without the baseline, or with values that params.yaml can't have.

    It is enough to check the corners: proposals lie between them, and every setting's limits form a
    range.

    Raises:
        UserError: The space is refused; the message names the values.
    """
    baseline(params, space)
    for values in _corners(space):
        try:
            changed_params(params, changes(values, params, space))
        except UserError as error:
            named = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UserError(
                f"search/params.yaml: space: no trial can have {named}: {error}"
            ) from error


def _corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yield all highest values together, then each one together with the others' lowest values."""
    lowest = {name: getattr(space, name).low for name in SPANS}
    highest = {name: getattr(space, name).high for name in SPANS}
    methods = list(space.gen_methods)
    lowest |= {"epochs": 1, "tau_start": min(space.tau_start), "gen_methods": methods[0]}
    highest |= {"epochs": space.epochs, "tau_start": max(space.tau_start)}
    yield {**lowest, **highest}
    for name, value in (*highest.items(), *(("gen_methods", method) for method in methods)):
        yield {**lowest, name: value}


def changes(values: Values, params: Params, space: Space) -> dict[str, Any]:
    """Return what a trial's values change in params.yaml.

    Only the ratio of hard and soft weight is searched: with leave-one-out advantages and AdamW, a
    common factor changes almost nothing, and parameter importances would be misleading.
    """
    steps = np.exp(values["shot_slope"] * np.arange(params.pointer.shots))
    weights = [round(float(weight), 4) for weight in steps / steps.sum()]
    name, start = first_tau(params)[0], values["tau_start"]
    return {
        "reward": {
            **{term: 0.0 for term in WEIGHTS if getattr(params.reward, term) != 0},
            "hard": round(2 * values["hard_share"], 4),
            "soft": round(2 * (1 - values["hard_share"]), 4),
            "shot_weights": weights,
        },
        "rl": {"filter_gen_methods": space.gen_methods[values["gen_methods"]]},
        RCE: {"tau": {**_taus(params), name: {"start": start, "end": start / 4}}},
        GRPO: {
            "rounds": 0,
            "start": name,
            "epochs": max(1, values["epochs"]),
            "learning_rate": _rounded(values["learning_rate"]),
            "kl_beta": _rounded(values["kl_beta"] if values["kl_beta"] >= SMALLEST else 0.0),
        },
    }


def _rounded(value: float) -> float:
    """Return a value rounded to three significant digits."""
    return float(f"{value:.3g}")


def _taus(params: Params) -> dict[str, Any]:
    return {name: tau.model_dump() for name, tau in params.rce.tau.items()}
