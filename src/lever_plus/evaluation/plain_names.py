"""What each method is called in plain words, for readers who do not know its name.

This is the one owner of these words: the report, `lever-plus results`, `lever-plus show` and the
documentation take them from here. The longer description of a method is its `label`.
"""

from collections.abc import Mapping
from typing import Final

from lever_plus.config.names import AGRO, GRPO, GRPO_STOP, RCE, SFT, SFT_BEAMS
from lever_plus.evaluation.methods import (
    DIVERSE,
    FIXED,
    INSTRUCTED,
    ORACLE,
    RANDOM,
    STTR_AS_MANY,
    VOTE,
    ZERO_SHOT,
    Method,
)
from lever_plus.features.similarities import MIXED, SIIR, SITR, STTR

PLAIN_NAMES: Final[Mapping[str, str]] = {
    ZERO_SHOT: "no demonstrations",
    INSTRUCTED: "no demonstrations, but the best instruction",
    RANDOM: "random demonstrations",
    STTR: "nearest by question text",
    VOTE: "most frequent answer of the nearest, without asking the model",
    SIIR: "nearest by image",
    SITR: "question text nearest to the image",
    MIXED: "nearest by question text and image",
    DIVERSE: "similar by question text, but varied",
    FIXED: "the same demonstrations for every question",
    STTR_AS_MANY: "nearest by question text, as many as the stopping selector shows",
    SFT: "imitation of a search",
    SFT_BEAMS: "imitation of only the best finds of a search",
    RCE: "learning from scored lists",
    AGRO: "learning from differences between scored lists",
    GRPO: "trial and error",
    GRPO_STOP: "trial and error that learns when to stop",
    ORACLE: "a search that knows the true answers",
}
"""{method: plain name}, for the methods whose names do not depend on params.yaml."""
BEST_OF: Final = "the best of several tries, by the true answers"


def plain_name(method: Method) -> str:
    """Return what a method is called in plain words, such as "nearest by question text".

    Methods whose names come from params.yaml have the words of what they are: another schedule of
    RCE those of RCE, the best of n tries a name without n, a user's own selector its label.
    """
    if method.name in PLAIN_NAMES:
        return PLAIN_NAMES[method.name]
    if method.kind == "ceiling":
        return BEST_OF
    return PLAIN_NAMES[RCE] if method.stage == RCE else method.label


def explained(method: Method) -> str:
    """Return plain name and name, such as "nearest by question text (sttr)"."""
    return f"{plain_name(method)} ({method.name})"
