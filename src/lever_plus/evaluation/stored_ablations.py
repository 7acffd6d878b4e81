"""What the variants of the pipeline leave: the rows of metrics/ablations.json, read strictly."""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from lever_plus.evaluation.stored import Count, Deviation, GainPart, Part, Share
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object

ADVICE: Final = "run `make ablations`"
TRANSFER: Final = {"policies": "", "used": "", "to_trained_there": None}
"""What files of an older version do not say."""


class AblationPart(Part):
    """Accuracy of a method of a variant.

    policies: the variant that trained it; used: the variant that names the place where it was used;
    to_trained_there: the difference to the same method trained at that place.
    """

    variant: str
    method: str
    shots: Annotated[dict[str, Share], Field(min_length=1)]
    accuracy: Share
    ci95: tuple[Share, Share]
    n: Count
    one_training: bool
    difference: GainPart | None
    versus: str
    policies: str = ""
    used: str = ""
    to_trained_there: GainPart | None = None
    reward_std: Deviation | None


def read_ablations(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the variants; UserError if the file is missing or damaged."""
    rows: list[dict[str, Any]] = read_object(path, ADVICE).get("rows", [])
    checked(tuple[AblationPart, ...], rows, str(path), ADVICE)
    return [{**TRANSFER, **row} for row in rows]
