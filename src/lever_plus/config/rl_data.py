"""Candidates of the RL data."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from lever_plus.config.base import HIGHEST, LOWEST, Distinct, Few, Section

Some = Annotated[int, Field(ge=0, le=10_000)]
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def _temperatures(counts: Mapping[str, int]) -> Mapping[str, int]:
    """Refuse keys that are no temperatures, or the same one twice."""
    known: dict[float, str] = {}
    for text in counts:
        number = float(text) if _NUMBER.fullmatch(text) else 0.0
        if not LOWEST <= number <= HIGHEST:
            raise ValueError(
                f"{text!r} is no temperature: write a number from {LOWEST} to {HIGHEST} in quotes"
            )
        if known.setdefault(number, text) != text:
            raise ValueError(f"{known[number]!r} and {text!r} are the same temperature")
    return counts


Temperatures = Annotated[dict[str, Few], AfterValidator(_temperatures)]


class RlDataParams(Section):
    """Candidates of the RL data; {} and 0 leave a generator out."""

    beam: Some = Field(description="candidates from beam search")
    samples: Temperatures = Field(description="{temperature: sampled candidates}")
    stochastic_beam: Temperatures = Field(
        description="{temperature: candidates sampled without replacement}"
    )
    random: Some = Field(description="uniform candidates")
    retrieval: Some = Field(description="nearest by question, by image, by both, then the next")
    scores: Annotated[list[Literal["gt_prob", "relevance"]], Distinct] = Field(
        description="scores beside hard and soft, for rewards that need them"
    )

    @property
    def counts(self) -> dict[str, int]:
        """How many candidates of a query each generator proposes, by gen_method."""
        asked = {"sample" if name == "samples" else name: value for name, value in self}
        del asked["scores"]
        return {n: sum(v.values()) if isinstance(v, dict) else v for n, v in asked.items()}


GenMethod = Literal["beam", "sample", "stochastic_beam", "random", "retrieval", "augmented"]
