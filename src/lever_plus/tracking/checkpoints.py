"""The policy of a training run: its md5, as DVC has it, and the tags that name it in MLflow."""

from typing import Final

from lever_plus.tracking.training_run import HISTORY_MD5, TrainingRun, md5

CHECKPOINT_MD5: Final = "dvc.md5"
CHECKPOINT_PATH: Final = "dvc.path"


def checkpoint_md5(run: TrainingRun) -> str:
    """Return the md5 of a run's policy; "" where there is none."""
    try:
        return md5(run.checkpoint)
    except FileNotFoundError:
        return ""


def checkpoint_tags(run: TrainingRun) -> dict[str, str]:
    """Return the tags that name a run's policy; none where there is none."""
    found = checkpoint_md5(run)
    return {CHECKPOINT_PATH: str(run.checkpoint), CHECKPOINT_MD5: found} if found else {}


def whole_tags(run: TrainingRun) -> dict[str, str]:
    """Return the tags of a run that has ended: its history, and which policy it made."""
    return {HISTORY_MD5: md5(run.history), **checkpoint_tags(run)}
