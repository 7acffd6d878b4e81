"""The fingerprint of a study: everything that changes the result of a trial, and nothing else.

Trials are compared with each other, so they may differ only in the values that were proposed for
them. Other things do not affect a trial's result and may change while a study runs: how fast trials
are computed, where answers and the study are kept, how values are proposed, how many trials there
are, and what other stages and methods do.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import TrialState

from lever_plus.config.names import GRPO, RCE
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.experiments.study.settings import StudySettings
from lever_plus.experiments.study.space import first_tau

MADE_WITH: Final = "made_with"
PROPOSED: Final = {"epochs", "learning_rate", "kl_beta", "rounds", "start"}
"""Settings of GRPO that differ from trial to trial, or that all trials set themselves."""
UNUSED: Final = {"group_size"}
"""Settings of GRPO for fresh candidates, which trials do not draw."""
SHOWN: Final = 3
RESULTS: Final = (TrialState.COMPLETE, TrialState.PRUNED)


def made_with(
    params: Params, settings: StudySettings, sources: Mapping[str, Any]
) -> dict[str, Any]:
    """Return {setting or source: value} for everything that a trial's result depends on.

    Args:
        params: Content of params.yaml.
        settings: Content of search/params.yaml.
        sources: What the trials are computed from, see `Trials.sources`.
    """
    space = settings.space.model_dump()
    sections = {
        "pointer": params.pointer.model_dump(),
        "reward": params.reward.model_dump(),
        "rl": params.rl.model_dump(include={"filter_gen_methods"}),
        RCE: {**params.rce.model_dump(exclude={"tau"}), "tau": first_tau(params)[1].model_dump()},
        GRPO: params.grpo.model_dump(exclude=PROPOSED | UNUSED),
        # A list, because for Optuna the order of the choices is part of the distribution.
        "space": {**space, "gen_methods": list(space["gen_methods"].items())},
    }
    found = {"seeds": settings.seeds, "kl_budget": settings.kl_budget}
    for section, values in sections.items():
        found |= {f"{section}.{key}": value for key, value in values.items()}
    kept: dict[str, Any] = json.loads(json.dumps({**found, **sources}))
    return kept


def check_made_with(study: optuna.Study, now: Mapping[str, Any]) -> None:
    """Refuse to mix trials that are not comparable; a study without results takes over `now`.

    Entries that an earlier version stored, but that no longer count, are ignored.

    Raises:
        UserError: The study was made with other settings or data; the message names what differs.
    """
    known = study.user_attrs.get(MADE_WITH)
    if known is None and not study.get_trials(deepcopy=False, states=RESULTS):
        study.set_user_attr(MADE_WITH, dict(now))
        return
    advice = "give the new one another name (search/params.yaml)"
    if not isinstance(known, dict):
        raise UserError(
            f"study {study.study_name} was made by another program or an earlier version, so it is "
            f"not known what its trials were made with: {advice}."
        )
    other = [name for name, value in now.items() if name not in known or known[name] != value]
    if other:
        shown = _listed([_difference(name, known, now) for name in other])
        raise UserError(
            f"study {study.study_name} was made with other settings or data, so its trials can't "
            f"be compared with new ones: {shown}. Undo that, or {advice}."
        )


def _difference(name: str, known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before = _short(known[name]) if name in known else "not there"
    return f"{name} was {before} and is now {_short(now[name])}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(differences: Sequence[str]) -> str:
    more = len(differences) - SHOWN
    return "; ".join(differences[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
