"""What `lever-plus ablate` leaves in metrics/ablations.json, read strictly."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lever_plus.evaluation.stored import Cost, Count, Deviation, GainPart, Part, Share
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object


class AblationPart(Part):
    """Accuracy of a method of a variant, and what it asked the VLM where that is known."""

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
    advice = "run `make ablations`"
    content = read_object(path, advice)
    checked(AblationsPart, content, str(path), advice)
    return {"curve": None, **content}
