"""Names of the methods that are trained, and of the stages that train them.

Stage `rce` trains one method for each name in `rce.tau`, and AGRO.
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
"""Names that no RCE schedule and no selector of a user may have: those of the pipeline's methods
(`evaluation.methods`), and `default`, which names the pipeline in tables of its variants."""
BEST_OF: Final = "best-of-"
Targets = dict[Literal["sft", "sft-beams"], Literal["scores", "beams"]]
"""{SFT method: what it imitates}, as in `sft.targets`."""
_STAGES: Final = {SFT: SFT, SFT_BEAMS: SFT, GRPO: GRPO, GRPO_STOP: GRPO}


def stage_of(method: str) -> str:
    """Return the stage that trains a method; RCE schedules and AGRO are trained by `rce`."""
    return _STAGES.get(method, RCE)


def check_methods(names: Collection[str]) -> None:
    """Refuse names that the pipeline's own methods have; ValueError says which."""
    for name in names:
        if name.casefold().startswith(BEST_OF):
            raise ValueError(
                f"{name!r}: names that begin with {BEST_OF} are reserved: choose another name"
            )
    check_apart(names, TAKEN)
