"""Candidates of the RL data: how many each generator proposes."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from lever_plus.config.base import HIGHEST, LOWEST, Distinct, Few, Section

Some = Annotated[int, Field(ge=0, le=10_000)]
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def _temperatures(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Refuse keys that are not temperatures, or that are the same temperature."""
    known: dict[float, str] = {}
    for text in counts:
        number = float(text) if _NUMBER.fullmatch(text) else 0.0
        if not LOWEST <= number <= HIGHEST:
            raise ValueError(
                f"{text!r} is not a temperature: write a number from {LOWEST} to {HIGHEST}, quoted"
            )
        if known.setdefault(number, text) != text:
            raise ValueError(f"{known[number]!r} and {text!r} are the same temperature")
    return counts


Temperatures = Annotated[dict[str, Few], AfterValidator(_temperatures)]


class RlDataParams(Section):
    """How many candidates per query each generator proposes; 0 or {} leaves a generator out."""

    beam: Some = Field(description="candidates from beam search with the SFT policy")
    samples: Temperatures = Field(
        description="{temperature: number of candidates sampled from the SFT policy}"
    )
    stochastic_beam: Temperatures = Field(
        description="{temperature: number of candidates sampled from it without replacement}"
    )
    random: Some = Field(description="candidates drawn uniformly from the pool")
    retrieval: Some = Field(
        description="candidates made of the nearest by question, by image and by both, then of the "
        "next nearest"
    )
    scores: Annotated[list[Literal["gt_prob", "relevance"]], Distinct] = Field(
        description="scores to compute besides hard and soft, for rewards that need them"
    )

    @property
    def counts(self) -> dict[str, int]:
        """Number of candidates per query by gen_method, over all temperatures."""
        asked = {"sample" if name == "samples" else name: value for name, value in self}
        del asked["scores"]
        return {n: sum(v.values()) if isinstance(v, dict) else v for n, v in asked.items()}


GenMethod = Literal["beam", "sample", "stochastic_beam", "random", "retrieval", "augmented"]
