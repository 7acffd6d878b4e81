"""search/params.yaml: what is searched, how long, and when a trial may become the default."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from lever_plus.config.base import Count, Positive, Section
from lever_plus.config.names import GRPO, RCE
from lever_plus.config.params import Params
from lever_plus.config.reward import WEIGHTS
from lever_plus.config.rl_data import GenMethod
from lever_plus.errors import UserError

STORAGE_VARIABLE: Final = "LEVER_PLUS_STUDY_STORAGE"
Values = Mapping[str, Any]
"""Values of a trial, by the names of `Space`."""


class Span(Section):
    """A range of numbers."""

    low: float
    high: float
    log: bool = Field(default=False, description="search in orders of magnitude")


class Space(Section):
    """What is searched."""

    learning_rate: Span = Field(description="grpo.learning_rate")
    kl_beta: Span = Field(description="grpo.kl_beta")
    epochs: Count = Field(description="largest grpo.epochs; 0 is the RCE-only policy")
    hard_share: Span = Field(description="hard weight / (hard + soft weight); their sum stays 2")
    shot_slope: Span = Field(description="shot weights grow as exp(slope * shot); 0: equal")
    tau_start: Sequence[Positive] = Field(description="rce.tau start; it ends at a quarter")
    gen_methods: Mapping[str, list[GenMethod] | None] = Field(
        description="{name: rl.filter_gen_methods}"
    )


class StudySettings(Section):
    """The whole file."""

    name: str
    trials: Count = Field(description="trials in the study, the baseline included")
    workers: Count = Field(description="processes that `make study` starts")
    seeds: list[int] = Field(min_length=1, description="training seeds of every trial")
    sampler_seed: int
    startup_trials: Count = Field(description="random trials before TPE")
    kl_budget: Positive = Field(description="largest KL to RCE, nats a pointer: a constraint")
    stale_seconds: Positive = Field(description="a trial of another machine is lost after this")
    storage: str = Field(description="journal file, or the URL of a database")
    top: Count = Field(description="trials that promotion trains again")
    fresh_seeds: list[int] = Field(min_length=2, description="training seeds of promotion")
    space: Space


def read_settings(path: Path) -> StudySettings:
    """Read the file; UserError says what is wrong with it.

    LEVER_PLUS_STUDY_STORAGE of the environment comes before `storage`: a database's password has no
    place in a file that git keeps.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run from the project's root folder.")
    content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    if os.environ.get(STORAGE_VARIABLE):
        content["storage"] = os.environ[STORAGE_VARIABLE]
    try:
        return StudySettings.model_validate(content, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def baseline(params: Params, space: Space) -> dict[str, Any]:
    """Return the values of the RCE-only baseline: params.yaml without GRPO."""
    tau = next(iter(params.rce.tau.values()))
    methods = params.rl.filter_gen_methods
    named = next((name for name, m in space.gen_methods.items() if m == methods), None)
    if tau.start not in space.tau_start or named is None:
        raise UserError(
            "search/params.yaml: the space must hold params.yaml's own tau start "
            f"({tau.start}) and rl.filter_gen_methods ({methods}): the baseline is trial 0."
        )
    return {
        "learning_rate": params.grpo.learning_rate,
        "kl_beta": params.grpo.kl_beta,
        "epochs": 0,
        "hard_share": 0.5,
        "shot_slope": 0.0,
        "tau_start": tau.start,
        "gen_methods": named,
    }


def changes(values: Values, params: Params, space: Space) -> dict[str, Any]:
    """Return what a trial's values change in params.yaml.

    Only the ratio of hard and soft weight is searched: under leave-one-out advantages and AdamW a
    common factor changes next to nothing, and importances would lie.
    """
    steps = np.exp(values["shot_slope"] * np.arange(params.pointer.shots))
    weights = [round(float(weight), 4) for weight in steps / steps.sum()]
    name = next(iter(params.rce.tau))
    start = values["tau_start"]
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
            "kl_beta": _rounded(values["kl_beta"]),
        },
    }


def _rounded(value: float) -> float:
    """Return a value with three significant digits; more would claim too much."""
    return float(f"{value:.3g}")


def _taus(params: Params) -> dict[str, Any]:
    return {name: tau.model_dump() for name, tau in params.rce.tau.items()}
