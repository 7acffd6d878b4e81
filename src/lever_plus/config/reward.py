"""The reward of params.yaml: weights of one linear formula, or a user's own function.

The reward of a shot is, with the weights of params.yaml,

    clip(bias + hard * h + soft * s + gt_prob * g + near_miss * (1 - h) * r + log_prob * q)

    h  `vqa_correct`, 0 or 1: whether any human gave the answer
    s  `vqa_acc_score`: the VQA accuracy, in [0, 1]
    g  `vqa_gt_prob`: the probability of the true answer
    r  `vqa_rel_score`: how near the answer is to a human one, in [0, 1]
    q  the log-probability of the pointer under the generator that proposed it

`reward.mode` selects one of the older system's modes, which are such weights, too (`MODES`).
"""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final

from pydantic import Field, model_validator

from lever_plus.config.base import NonNegative, Positive, Section, Signed, Text
from lever_plus.config.plugins import find
from lever_plus.errors import UserError

WEIGHTS: Final = ("bias", "hard", "soft", "gt_prob", "near_miss", "log_prob")
SHARED: Final = ("shot_weights", "clip")
"""Settings that every reward has, whether it is given by weights, a mode or a function."""
NEEDED: Final = {"gt_prob": "gt_prob", "near_miss": "relevance", "log_prob": "log_prob"}
"""{weight: the score that its term needs}; the hard and soft scores are always there."""

Terms = Mapping[str, Mapping[str, float]]
"""{weight of a mode: {weight of the formula: the multiple of the former that it is}}."""

MODES: Final[Mapping[str, Terms]] = {
    "hard_plus_soft": {"hard_weight": {"hard": 1}, "soft_weight": {"soft": 1}},
    "hard_plus_soft_v2": {"hard_weight": {"hard": 2}, "soft_weight": {"soft": 1}},
    "separated": {"hard_weight": {"hard": 2}, "soft_weight": {"soft": 1}},
    "hard_only": {"hard_weight": {"hard": 1}},
    "soft_only": {"soft_weight": {"soft": 1}},
    "hard01_plus_gtprob": {"hard_weight": {"hard": 1}, "soft_weight": {"gt_prob": 1}},
    "hard01_plus_gtprob_separated": {"hard_weight": {"hard": 2}, "soft_weight": {"gt_prob": 1}},
    "hard_plus_gtprob_plus_rel": {
        "hard_weight": {"hard": 1},
        "soft_weight": {"gt_prob": 1},
        "rel_weight": {"near_miss": 1},
    },
    "legacy": {"alpha": {"log_prob": 1}, "beta": {"hard": 1}},
}
OPTIONS: Final[Mapping[str, Mapping[str, Mapping[str | bool, Terms]]]] = {
    "legacy": {
        "correctness_mode": {"01": {}, "pm1": {"beta": {"hard": 2, "bias": -1}}},
        "use_logprob": {False: {}, True: {"alpha": {"log_prob": -1}}},
    }
}
"""{mode: {option: {value: the terms of the mode that it replaces}}}."""


class RewardParams(Section):
    """The reward of an answer at one shot, and the weights of the shots of a pointer.

    params.yaml gives it in one of three ways: by weights of the formula (a weight that is left out
    is 0), by a mode with the mode's own weights, which are turned into those of the formula, or by
    a function.
    """

    bias: Signed = Field(default=0.0, description="added to every answer's reward")
    hard: NonNegative = Field(default=0.0, description="weight of the hard score, 0 or 1")
    soft: NonNegative = Field(default=0.0, description="weight of the VQA accuracy")
    gt_prob: NonNegative = Field(default=0.0, description="weight of the true answer's probability")
    near_miss: NonNegative = Field(
        default=0.0, description="weight of a wrong answer's nearness to a human one"
    )
    log_prob: Signed = Field(
        default=0.0,
        description="weight of the pointer's log-probability; only for training on the RL data",
    )
    function: Text | None = Field(
        default=None,
        description="a reward of your own in place of weights: package.module:name, or the name of "
        "an entry point of lever_plus.rewards",
    )
    clip: Positive = Field(description="rewards at a shot lie within -clip..clip")
    shot_weights: list[NonNegative] = Field(
        description="weights of the rewards at shots 1, 2, ...; one for each shot of a pointer"
    )

    @property
    def trained_shots(self) -> int:
        """The last shot that has a weight: no pick after it changes the reward."""
        return max(k for k, weight in enumerate(self.shot_weights, start=1) if weight > 0)

    @model_validator(mode="before")
    @classmethod
    def _in_weights(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        if settings.get("mode") is not None:
            return _of_mode(settings)
        strays = {name for terms in MODES.values() for name in terms} & set(settings)
        if strays:
            raise ValueError(
                f"{min(strays)} is a weight of one of the older system's modes: add mode, or give "
                f"weights by the names {', '.join(WEIGHTS)}"
            )
        return settings

    @model_validator(mode="after")
    def _effective(self) -> "RewardParams":
        used = [name for name in WEIGHTS if getattr(self, name) != 0]
        if self.function is not None and used:
            raise ValueError(f"function is the whole reward: {used[0]} has no effect beside it")
        if self.function is None and not set(used) - {"bias"}:
            raise ValueError("no score has a weight: nothing would be learned")
        return self


def given_as(reward: Mapping[str, Any]) -> str | None:
    """Return how settings give a reward: "mode NAME", "function", "weights"; None: not at all."""
    if reward.get("mode") is not None:
        return f"mode {reward['mode']}"
    if reward.get("function") is not None:
        return "function"
    return "weights" if any(name in reward for name in WEIGHTS) else None


def needed_scores(reward: RewardParams) -> set[str]:
    """Return the scores that a reward needs besides the hard and the soft one.

    Returns:
        A subset of "gt_prob" and "relevance", which `rl_data.scores` asks for, and "log_prob",
        which only candidates of the RL data have. A function names them in its attribute `needs`.

    Raises:
        UserError: The function cannot be loaded, or its `needs` names something else.
    """
    if reward.function is None:
        return {score for weight, score in NEEDED.items() if getattr(reward, weight) != 0}
    needs = getattr(reward_function(reward.function), "needs", ())
    known = set(NEEDED.values())
    if not isinstance(needs, Collection) or not set(needs) <= known:
        raise UserError(
            f"reward.function: {reward.function} has needs = {needs!r}: make it a list of "
            f"{', '.join(sorted(known))}."
        )
    return set(needs)


@cache
def reward_function(name: str) -> Callable[..., Any]:
    """Return the function of a reward, looked up once; UserError if there is none."""
    function: Callable[..., Any] = find("lever_plus.rewards", name, {}, what="reward.function")
    return function


def _of_mode(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a reward with its mode turned into weights."""
    mode = str(settings["mode"])
    if mode not in MODES:
        raise ValueError(f"there is no mode {mode}: choose one of {', '.join(MODES)}")
    options = OPTIONS.get(mode, {})
    known = (*MODES[mode], *options)
    own = {name: value for name, value in settings.items() if name not in ("mode", *SHARED)}
    for name in own:
        if name not in known:
            raise ValueError(f"mode {mode} has no {name}, only {', '.join(known)}")
    lacking = [name for name in known if name not in own]
    if lacking:
        raise ValueError(f"mode {mode} needs {lacking[0]}")
    terms = dict(MODES[mode])
    for name, choices in options.items():
        terms |= _chosen(name, own[name], choices)
    reward = {name: settings[name] for name in SHARED if name in settings}
    for name, multiples in terms.items():
        weight = _weight(name, own[name])
        reward |= {term: multiple * weight for term, multiple in multiples.items()}
    return reward


def _chosen(name: str, value: object, choices: Mapping[str | bool, Terms]) -> Terms:
    """Return the terms that a value of an option stands for; 0 is not taken for False."""
    for choice, terms in choices.items():
        if type(value) is type(choice) and value == choice:
            return terms
    allowed = " or ".join(c if isinstance(c, str) else _yaml(c) for c in choices)
    raise ValueError(f"{name} is {_yaml(value)}: it must be {allowed}")


def _weight(name: str, value: object) -> float:
    """Return a weight of a mode after checking it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(
            f"{name} is {_yaml(value)}: it must be a number, 0 or more (1.0e-4, not 1e-4)"
        )
    return value


def _yaml(value: object) -> str:
    """Return a value as params.yaml writes it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
