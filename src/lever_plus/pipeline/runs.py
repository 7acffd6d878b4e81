"""The training runs that params.yaml names, and where each keeps its history."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lever_plus.config.names import SFT
from lever_plus.config.offline import TauSchedule
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import Method, methods_of
from lever_plus.pipeline.paths import HISTORY, Paths
from lever_plus.tracking.training_run import TrainingRun


def training_runs(
    paths: Paths, seed: int, training_seeds: Sequence[int], schedules: Mapping[str, TauSchedule]
) -> list[TrainingRun]:
    """Return all runs: SFT, and every RCE schedule, AGRO and GRPO for each training seed.

    Args:
        paths: Where they are.
        seed: Of SFT.
        training_seeds: Of the others.
        schedules: `rce.tau`.
    """
    trained = [method for method in methods_of(schedules) if method.kind == "trained"]
    runs = [_run(paths, method, seed) for method in trained if method.stage == SFT]
    for number in training_seeds:
        runs += [_run(paths, method, number) for method in trained if method.stage != SFT]
    return runs


def _run(paths: Paths, method: Method, seed: int) -> TrainingRun:
    place = paths.trained(method.name, seed)
    return TrainingRun(method.stage, method.name, seed, place / HISTORY)


def variant_run(
    paths: Paths, variant: str, method: str, seed: int, folder: Path | None = None
) -> TrainingRun:
    """Return a run of an ablation's variant; its history is in `folder` while it trains."""
    place = folder or paths.variant(variant, method, seed)
    return TrainingRun(f"ablation/{variant}", method, seed, place / HISTORY)


def find_run(
    runs: Sequence[TrainingRun], stage: str, seed: int, method: str | None = None
) -> TrainingRun:
    """Return one of them (without `method`, the stage's first); UserError says which there are."""
    for run in runs:
        if (run.stage, run.seed) == (stage, seed) and method in (None, run.method):
            return run
    known = ", ".join(run.name for run in runs)
    raise UserError(f"params.yaml has no run {stage}/{method or '*'}/seed{seed}: it has {known}.")
