"""The training runs that params.yaml names, and where each keeps its history."""

from collections.abc import Sequence
from pathlib import Path

from lever_plus.config.names import stage_of
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import Methods
from lever_plus.pipeline.paths import HISTORY, Paths
from lever_plus.tracking.training_run import TrainingRun


def training_runs(
    paths: Paths, training_seeds: Sequence[int], methods: Methods
) -> list[TrainingRun]:
    """Return all runs: every trained method for each seed.

    Args:
        paths: Paths of the project.
        training_seeds: The training seeds of params.yaml.
        methods: The methods of params.yaml; only the trained ones have runs.
    """
    return [_run(paths, method, seed) for seed in training_seeds for method in methods.trained]


def _run(paths: Paths, method: str, seed: int) -> TrainingRun:
    return TrainingRun(stage_of(method), method, seed, paths.trained(method, seed) / HISTORY)


def find_seed(training_seeds: Sequence[int], seed: int | None) -> int:
    """Return a training seed, the first if none is named.

    Raises:
        UserError: params.yaml does not have this seed; the message names those that it has.
    """
    if seed is None:
        return training_seeds[0]
    if seed not in training_seeds:
        known = ", ".join(map(str, training_seeds))
        raise UserError(f"params.yaml has no training seed {seed}: training_seeds has {known}.")
    return seed


def variant_run(
    paths: Paths, variant: str, method: str, seed: int, folder: Path | None = None
) -> TrainingRun:
    """Return a run of an ablation's variant; while it trains, its history is in `folder`."""
    place = folder or paths.variant(variant, method, seed)
    return TrainingRun(f"ablation/{variant}", method, seed, place / HISTORY)


def find_run(
    runs: Sequence[TrainingRun], stage: str, seed: int, method: str | None = None
) -> TrainingRun:
    """Return the run of a stage, seed and method; without `method`, the stage's first run.

    Raises:
        UserError: There is no such run; the message names all runs.
    """
    for run in runs:
        if (run.stage, run.seed) == (stage, seed) and method in (None, run.method):
            return run
    known = ", ".join(run.name for run in runs)
    raise UserError(f"params.yaml has no run {stage}/{method or '*'}/seed{seed}: it has {known}.")
