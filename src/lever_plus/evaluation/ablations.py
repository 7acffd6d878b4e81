"""What `lever-plus ablate` leaves in metrics/ablations.json, read strictly."""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from lever_plus.evaluation.stored import Cost, Count, Deviation, GainPart, Part, Share
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object

ADVICE: Final = "run `make ablations`"
UNSAID: Final = {
    **{"asks": "", "vlm_requests": None},
    **{"policies": "", "used": "", "to_trained_there": None},
}
"""What files of an older version do not say of a row."""


class AblationPart(Part):
    """Accuracy of a method of a variant, and what it asked the VLM where that is known.

    policies: the variant that trained it; used: the variant that names the place where it was used;
    to_trained_there: the difference to the same method trained at that place.
    """

    asks: str = ""
    variant: str
    method: str
    shots: Annotated[dict[str, Share], Field(min_length=1)]
    accuracy: Share
    ci95: tuple[Share, Share]
    n: Count
    one_training: bool
    vlm_requests: Cost | None = None
    difference: GainPart | None
    versus: str
    policies: str = ""
    used: str = ""
    to_trained_there: GainPart | None = None
    reward_std: Deviation | None


class AblationsPart(Part):
    """What the variants gave, and which of them are drawn: those that ask what `curve` says."""

    curve: str | None = None
    rows: tuple[AblationPart, ...]


def read_ablations(path: Path) -> dict[str, Any]:
    """Return what the variants gave; nothing where `make ablations` was not run.

    Raises:
        UserError: The file is damaged.
    """
    if not path.is_file():
        return {"curve": None, "rows": []}
    content = read_object(path, ADVICE)
    checked(AblationsPart, content, str(path), ADVICE)
    rows = [{**UNSAID, **row} for row in content["rows"]]
    return {"curve": None, **content, "rows": rows}
