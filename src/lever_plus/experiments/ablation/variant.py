"""One variant with one seed after another: trained into a folder of its own, then evaluated.

Everything that the variant does not change is read from the pipeline's outputs, so that variants
share data, models, pools, and the answer store; the very stage functions run. A seed's SFT policy,
RL data and off-line policies are those that the pipeline made with the same seed, so the seeds of
variants are training seeds, and intervals over them hold the whole training.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lever_plus.config.file import load_params
from lever_plus.config.names import GRPO, GRPO_STOP, RCE, SFT
from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.errors import UserError
from lever_plus.evaluation.evaluate import evaluate_selector
from lever_plus.experiments.ablation.variants import (
    FACTS,
    SCORES,
    VARIANTS,
    find_variant,
    params_of,
    read_variants,
    stages_to_run,
)
from lever_plus.files.locks import locked
from lever_plus.files.writing import replacing, write_json
from lever_plus.pipeline import grpo, offline, rl_data, sft, sft_data
from lever_plus.pipeline.costs import requests_to_train
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.training import Track
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.returns import leave_one_out, statistics, total
from lever_plus.vlm.store.cached import StoredVlm

Tracks = Callable[[str, Paths, int], Track]
"""Opens the tracked runs of a variant's seed, given the variant, where it trains, and the seed."""


def run(name: str, paths: Paths, tracks: Tracks, vlm: StoredVlm | None = None) -> Outcome:
    """Run a variant with every seed of `ablations/variants.yaml`.

    Args:
        name: Of the variant.
        paths: The pipeline's.
        tracks: Opens the tracked runs.
        vlm: The VLM, where it is open already.

    Raises:
        UserError: The variant is not valid, a seed of it is no training seed, or another process
            is running it just now.
    """
    find_variant(name, paths.root)
    lock = paths.cache / "ablations" / f"{name}.lock"
    busy = f"{name} is being run by another `lever-plus ablate` here: wait until that has ended."
    with locked(lock, busy, "let this user write there"):
        return _run(name, paths, tracks, vlm)


def _run(name: str, paths: Paths, tracks: Tracks, vlm: StoredVlm | None) -> Outcome:
    """Run a variant; nobody else does."""
    root, variant = paths.root, find_variant(name, paths.root)
    os.environ.setdefault("DVC_ROOT", str(root.resolve()))  # where the MLflow store is
    base, params = load_params(root / "params.yaml"), params_of(variant, root)
    stages, seeds = stages_to_run(variant, base, params, root), _seeds(base, root)
    fresh = paths.cache / "ablations" / name / "out"
    shutil.rmtree(fresh, ignore_errors=True)
    scores: list[pd.DataFrame] = []
    facts: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        work = paths.cache / "ablations" / name / f"seed{seed}"
        shutil.rmtree(work, ignore_errors=True)  # what a killed run has left
        moved = replace(
            paths, moved={stage: work / stage for stage in stages}, metrics_in=work / "metrics"
        )
        track = tracks(name, moved, seed)
        _train(params, moved, stages, variant.methods, seed, track, vlm)
        workspace = Workspace(moved, params.vlm, params.scoring, vlm)
        scores += _evaluate(params, workspace, variant.methods, seed)
        asked = {m: requests_to_train(moved, m, seed, params.grpo.start) for m in variant.methods}
        facts[f"seed{seed}"] = {"vlm_requests": asked}
        if RCE in stages:
            facts[f"seed{seed}"] |= _describe(params, workspace, seed)
        for method in variant.methods:
            shutil.copytree(moved.trained(method, seed), fresh / f"seed{seed}" / method)
        shutil.rmtree(work)
    with replacing(fresh / SCORES) as file:
        pd.concat(scores, ignore_index=True).to_parquet(file, index=False)
    write_json(fresh / FACTS, {"stages": stages, **facts})
    # Only now: what an earlier run gave is there until this one is whole.
    out = paths.variant(name)
    if out.is_dir():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fresh, out)
    return Outcome(f"{name}: {', '.join(stages)} run anew; {len(facts)} seeds in {out}")


def _seeds(base: Params, root: Path) -> list[int]:
    """Return the seeds of all variants; UserError if the pipeline has not trained with each."""
    seeds = read_variants(root).seeds
    other = [seed for seed in seeds if seed not in base.training_seeds]
    if other:
        raise UserError(
            f"{VARIANTS}: seeds: {other[0]} is not one of training_seeds in params.yaml "
            f"({', '.join(map(str, base.training_seeds))}), and a variant starts from what the "
            "pipeline trained with its seed: add it there, or leave it out here."
        )
    return seeds


def _train(
    params: Params,
    paths: Paths,
    stages: Sequence[str],
    methods: Sequence[str],
    seed: int,
    track: Track,
    vlm: StoredVlm | None,
) -> None:
    """Run stages."""
    needed = {*methods, params.grpo.start} if GRPO in stages else set(methods)
    imitations = methods if stages[-1:] == [SFT] else {*methods, SFT}
    calls: dict[str, Callable[[], Outcome]] = {
        "sft_data": lambda: sft_data.run(settings_of(sft_data.Settings, params), paths, vlm),
        SFT: lambda: sft.run(
            settings_of(sft.Settings, params), paths, seed, track, vlm, imitations
        ),
        "rl_data": lambda: rl_data.run(settings_of(rl_data.Settings, params), paths, seed, vlm),
        RCE: lambda: offline.run(
            settings_of(offline.Settings, params), paths, seed, track, vlm, needed
        ),
        GRPO: lambda: grpo.run(
            settings_of(grpo.Settings, params), paths, seed, track, vlm, methods
        ),
    }
    for stage in stages:
        calls[stage]()


def _evaluate(
    params: Params, workspace: Workspace, methods: Sequence[str], seed: int
) -> list[pd.DataFrame]:
    """Score the methods on the test questions; nothing is chosen here."""
    questions, scorer = workspace.of_split("test"), workspace.scorer
    pools, shots = workspace.pools_of(questions), params.pointer.shots
    tables = []
    for method in methods:
        price = params.pointer.price if method == GRPO_STOP else None
        selector = workspace.selector(workspace.paths.trained(method, seed), price)
        tables.append(evaluate_selector(scorer, method, seed, selector, questions, pools, shots))
    return tables


def _describe(params: Params, workspace: Workspace, seed: int) -> dict[str, float]:
    """Return what the candidates of the RL data give: reward and its spread inside groups."""
    groups = workspace.groups(workspace.paths.rl_data(seed), params.reward, params.rl)
    weights = workspace.environment(params.pointer.shots, params.reward).trained_weights
    returns = total(groups.rewards, torch.tensor(weights))
    return statistics(returns, leave_one_out(returns, groups.keep), groups.keep)
