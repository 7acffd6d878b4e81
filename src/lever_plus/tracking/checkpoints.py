"""The policy file of a training run: its md5, as in DVC, and the tags that name it in MLflow."""

from typing import Final

from lever_plus.tracking.training_run import HISTORY_MD5, TrainingRun, md5

CHECKPOINT_MD5: Final = "dvc.md5"
CHECKPOINT_PATH: Final = "dvc.path"


def checkpoint_md5(run: TrainingRun) -> str:
    """Return the md5 of a run's policy file; "" if it does not exist."""
    try:
        return md5(run.checkpoint)
    except FileNotFoundError:
        return ""


def checkpoint_tags(run: TrainingRun) -> dict[str, str]:
    """Return the tags that name a run's policy file; no tags if it does not exist."""
    found = checkpoint_md5(run)
    return {CHECKPOINT_PATH: str(run.checkpoint), CHECKPOINT_MD5: found} if found else {}


def whole_tags(run: TrainingRun) -> dict[str, str]:
    """Return the tags of a run that has ended: the md5 of its history, and its policy."""
    return {HISTORY_MD5: md5(run.history), **checkpoint_tags(run)}
