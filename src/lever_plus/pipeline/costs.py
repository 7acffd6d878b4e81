"""How many requests to the VLM it takes to train a method, from the stages' metrics files.

The policies that a method starts from, and the data that it learns from, are part of the count.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from lever_plus.config.names import GRPO, GRPO_STOP, SFT, stage_of
from lever_plus.files.checking import checked
from lever_plus.files.json_files import read_object
from lever_plus.pipeline.paths import Paths

ADVICE: Final = "run `dvc repro evaluate`"


class _Asked(BaseModel):
    """The requests of a stage or of one of its trainings; other keys of the file are ignored."""

    model_config = ConfigDict(strict=True)

    vlm_requests: Annotated[int, Field(ge=0)]


def requests_to_train(paths: Paths, method: str, seed: int, start: str) -> int:
    """Return how many requests it takes to train one method and everything that it starts from.

    Args:
        paths: Paths of the project, or of a variant; a variant uses the project's other stages.
        method: A trained method.
        seed: Its training seed.
        start: The offline method that GRPO starts from (`grpo.start`).

    Raises:
        UserError: A metrics file is missing, or does not have this number.
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
    """Return the folder of a stage's metrics files: the project's, unless the stage is moved."""
    return paths.metrics if stage in paths.moved else Paths(paths.root).metrics


def _asked(path: Path, method: str | None = None) -> int:
    """Return the requests of a stage, or of one of its methods, from its metrics file."""
    found = read_object(path, ADVICE)
    if method is None:
        return checked(_Asked, found, str(path), ADVICE).vlm_requests
    return checked(_Asked, found.get(method), f"{path}, {method}", ADVICE).vlm_requests
