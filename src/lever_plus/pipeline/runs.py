"""The training runs that params.yaml names, and where each keeps its history."""

from pathlib import Path

from lever_plus.config.names import SFT
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.evaluation.methods import Method, methods_of
from lever_plus.pipeline import paths
from lever_plus.tracking.training_run import TrainingRun


def training_runs(params: Params) -> list[TrainingRun]:
    """Return all runs: sft, every RCE schedule, AGRO and GRPO, for each training seed."""
    methods = methods_of(params.rce.tau)
    trained = [method for method in methods if method.kind == "trained"]
    runs = [_run(method, params.seed) for method in trained if method.stage == SFT]
    for seed in params.training_seeds:
        runs += [_run(method, seed) for method in trained if method.stage != SFT]
    return runs


def _run(method: Method, seed: int) -> TrainingRun:
    place = paths.trained(method.name, seed)
    return TrainingRun(method.stage, method.name, seed, place / paths.HISTORY)


def variant_run(variant: str, method: str, seed: int, folder: Path | None = None) -> TrainingRun:
    """Return a run of an ablation's variant; its history lies in `folder` while it trains."""
    place = folder or paths.ablation(variant, method, seed)
    return TrainingRun(f"ablation/{variant}", method, seed, place / paths.HISTORY)


def find_run(params: Params, stage: str, seed: int, method: str | None = None) -> TrainingRun:
    """Return one of them (without `method`, the stage's first); UserError says which there are."""
    runs = training_runs(params)
    for run in runs:
        if (run.stage, run.seed) == (stage, seed) and method in (None, run.method):
            return run
    known = ", ".join(run.name for run in runs)
    raise UserError(f"params.yaml has no run {stage}/{method or '*'}/seed{seed}: it has {known}.")
