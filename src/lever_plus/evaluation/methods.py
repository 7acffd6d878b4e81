"""Which of the evaluated methods are what: what they are is read from their names."""

from typing import Final

ZERO_SHOT: Final = "zero-shot"
ORACLE: Final = "oracle"
SIMILARITY: Final = ("sttr", "siir", "sitr", "mixed", "diverse")
"""Baselines that choose by similarity, without training."""
SHOWN: Final = (ZERO_SHOT, "sttr", "random", "sft", "rce", "agro", "grpo", ORACLE)
"""Methods whose decisions are shown, in this order."""


def is_ceiling(method: str) -> bool:
    """Return whether a method sees the true answers: no policy, but what one could reach."""
    return method == ORACLE or method.startswith("best-of-")
