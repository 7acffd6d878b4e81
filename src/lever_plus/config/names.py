"""Names of what is trained: sections of params.yaml, stages of dvc.yaml, methods of an evaluation.

Methods that stage `rce` trains are named in `rce.tau`, AGRO excepted, which it trains beside them.
"""

from collections.abc import Collection
from typing import Final, Literal

from lever_plus.files.names import check_apart

SFT: Final = "sft"
SFT_BEAMS: Final = "sft-beams"
RCE: Final = "rce"
AGRO: Final = "agro"
GRPO: Final = "grpo"
GRPO_STOP: Final = "grpo-stop"
TAKEN: Final = (
    *(SFT, SFT_BEAMS, AGRO, GRPO, GRPO_STOP),
    *("zero-shot", "random", "sttr", "siir", "sitr", "mixed", "vote", "diverse", "fixed"),
    *("instructed", "sttr-as-many", "oracle", "default"),
)
"""Names that no schedule and no selector of a user's own may have: the pipeline's own methods
(`evaluation.methods`), and `default`, which is the pipeline beside its variants."""
BEST_OF: Final = "best-of-"
Targets = dict[Literal["sft", "sft-beams"], Literal["scores", "beams"]]
"""{method of SFT: what it imitates}, as `sft.targets` has it."""
_STAGES: Final = {SFT: SFT, SFT_BEAMS: SFT, GRPO: GRPO, GRPO_STOP: GRPO}


def stage_of(method: str) -> str:
    """Return the stage that trains a method; an RCE schedule and AGRO learn from the RL data."""
    return _STAGES.get(method, RCE)


def check_methods(names: Collection[str]) -> None:
    """Refuse names of methods that mean another one; ValueError says which."""
    for name in names:
        if name.casefold().startswith(BEST_OF):
            raise ValueError(f"{name!r}: names that begin with {BEST_OF} mean something else")
    check_apart(names, TAKEN)
