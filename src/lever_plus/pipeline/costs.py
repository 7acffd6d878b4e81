"""What training a method asked the VLM, its whole chain: read from the stages' metrics files."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from lever_plus.config.names import GRPO, GRPO_STOP, SFT, stage_of
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object
from lever_plus.pipeline.paths import Paths

ADVICE: Final = "run `dvc repro evaluate`"


class _Asked(BaseModel):
    """How many requests a stage had, or one training of it; what else it says is not read here."""

    model_config = ConfigDict(strict=True)

    vlm_requests: Annotated[int, Field(ge=0)]


def requests_to_train(paths: Paths, method: str, seed: int, start: str) -> int:
    """Return the requests of all that a method is made from, as if nothing else were trained.

    Args:
        paths: Of the project, or of a variant, whose other stages are the project's.
        method: A trained one.
        seed: Of its training.
        start: `grpo.start`.

    Raises:
        UserError: A metrics file is missing, or does not say it.
    """
    of_seed, stage = f"seed{seed}.json", stage_of(method)
    own = _asked(_metrics_of(paths, stage) / stage / of_seed, method)
    if stage == SFT:
        return own + _asked(_metrics_of(paths, "sft_data") / "sft_data.json")
    if stage == GRPO:
        before = GRPO if method == GRPO_STOP else start
        return own + requests_to_train(paths, before, seed, start)
    proposed = _asked(_metrics_of(paths, "rl_data") / "rl_data" / of_seed)
    return own + proposed + requests_to_train(paths, SFT, seed, start)


def _metrics_of(paths: Paths, stage: str) -> Path:
    """Return the folder of a stage's metrics files: the project's, unless its outputs are moved."""
    return paths.metrics if stage in paths.moved else Paths(paths.root).metrics


def _asked(path: Path, method: str | None = None) -> int:
    """Return what a metrics file says about a stage, or about one of its methods."""
    found = read_object(path, ADVICE)
    if method is None:
        return checked(_Asked, found, str(path), ADVICE).vlm_requests
    return checked(_Asked, found.get(method), f"{path}, {method}", ADVICE).vlm_requests
