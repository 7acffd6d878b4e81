"""Names of what is trained: sections of params.yaml, stages of dvc.yaml, methods of an evaluation.

Methods that stage `rce` trains are named in `rce.tau`, AGRO excepted, which it trains beside them.
"""

from collections.abc import Collection
from typing import Final

from lever_plus.files.names import check_apart

SFT: Final = "sft"
RCE: Final = "rce"
AGRO: Final = "agro"
GRPO: Final = "grpo"
TAKEN: Final = (
    *(SFT, AGRO, GRPO, "zero-shot", "random", "sttr", "siir", "sitr", "mixed", "vote", "diverse"),
    *("fixed", "oracle", "default"),
)
"""Names that no schedule and no selector of a user's own may have: the methods that are always
there (`evaluation.methods`), and `default`, which is the pipeline beside its variants."""
BEST_OF: Final = "best-of-"


def check_methods(names: Collection[str]) -> None:
    """Refuse names of methods that mean another one; ValueError says which."""
    for name in names:
        if name.casefold().startswith(BEST_OF):
            raise ValueError(f"{name!r}: names that begin with {BEST_OF} mean something else")
    check_apart(names, TAKEN)
