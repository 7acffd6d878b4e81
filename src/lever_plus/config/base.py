"""What all sections of params.yaml share: no unknown keys, finite numbers, and types with ranges.

A value outside its range is refused when the file is checked. The ranges are wide: they exclude
what would overflow a float32, a 32-bit count or a machine, not what is unusual.
"""

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from lever_plus.files.checking import Row

Item = TypeVar("Item")

MOST: Final = 2**31 - 1
"""The largest count."""
SMALLEST: Final = 1e-6
"""The smallest number that is not 0: a smaller one has no effect in float32."""
LARGEST: Final = 1e6
"""The largest number."""
LOWEST: Final = 1e-3
"""The lowest temperature."""
HIGHEST: Final = 1e4
"""The highest temperature."""


class Section(Row):
    """A section of params.yaml."""


def _plain(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return _writable(text)


def _writable(text: str) -> str:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t":
            raise ValueError(f"it holds the control character {letter!r}")
    return text


def _named(path: Any) -> Any:
    if path is None:
        raise ValueError(
            "it names no model: write a folder, a hub id, or the name of a shipped model "
            "(shipped:vlm, shipped:clip)"
        )
    return path


def _effective(number: float) -> float:
    if 0 < abs(number) < SMALLEST:
        raise ValueError(f"{number} is too small to have an effect: use 0, or at least {SMALLEST}")
    return number


def _distinct(items: Sequence[Item]) -> Sequence[Item]:
    for number, item in enumerate(items):
        if item in items[:number]:
            raise ValueError(f"it names {item} twice")
    return items


Share = Annotated[float, Field(ge=0, le=1)]


Count = Annotated[int, Field(ge=1, le=MOST)]


Whole = Annotated[int, Field(ge=0, le=MOST)]


Few = Annotated[int, Field(ge=1, le=10_000)]
"""A count of things that exist at the same time: pointers of a query, threads, layers."""


Width = Annotated[int, Field(ge=1, le=16_384)]
"""The width of a layer."""


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""A seed that NumPy, torch and scikit-learn all accept."""


Positive = Annotated[float, Field(ge=SMALLEST, le=LARGEST)]


NonNegative = Annotated[float, Field(ge=0, le=LARGEST), AfterValidator(_effective)]


Signed = Annotated[float, Field(ge=-LARGEST, le=LARGEST), AfterValidator(_effective)]


Temperature = Annotated[float, Field(ge=LOWEST, le=HIGHEST)]
"""What scores are divided by before a softmax.

Below the range the quotient overflows; above it the softmax is uniform.
"""


Dropout = Annotated[
    float, Field(ge=0, le=0.99, description="share of hidden values set to 0 in training")
]


LearningRate = Annotated[
    float, Field(ge=1e-9, le=10, description="step size of AdamW, before the schedule")
]


Text = Annotated[str, Field(max_length=4096), AfterValidator(_plain)]
"""A path, a name or an address: not empty, without control characters but line feeds and tabs."""


ModelPath = Annotated[Text, BeforeValidator(_named)]
"""A Hugging Face folder, a hub id, or the name of a shipped model."""


Prose = Annotated[str, AfterValidator(_writable)]
"""A text that may be empty."""


Distinct = AfterValidator(_distinct)
"""A list that names nothing twice."""


DEVICE: Final = r"^(cpu|cuda|mps|xpu|hpu|npu|xla)(:[0-9]{1,3})?$"
Device = Annotated[str, Field(pattern=DEVICE, description="cpu, cuda, cuda:1, ...")]
