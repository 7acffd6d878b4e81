"""Reading metrics/ablations.json, which `lever-plus ablate` writes."""

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
"""Values of a row's fields that files of older versions do not have."""


class AblationPart(Part):
    """Accuracy of a method in a variant, and its number of requests to the VLM, if known.

    policies: the variant that trained the policies; used: the variant with whose VLM and pools they
    were evaluated; to_trained_there: the difference from the same method trained in that variant.
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
    """The results of the variants. Those whose `asks` equals `curve` are drawn as a curve."""

    curve: str | None = None
    rows: tuple[AblationPart, ...]


def read_ablations(path: Path) -> dict[str, Any]:
    """Return the results of the variants; no rows if `make ablations` was not run.

    Raises:
        UserError: The file is damaged.
    """
    if not path.is_file():
        return {"curve": None, "rows": []}
    content = read_object(path, ADVICE)
    checked(AblationsPart, content, str(path), ADVICE)
    rows = [{**UNSAID, **row} for row in content["rows"]]
    return {"curve": None, **content, "rows": rows}
