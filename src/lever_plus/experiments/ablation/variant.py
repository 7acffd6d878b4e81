"""One variant: trained with each seed in a folder of its own, then evaluated.

The variant runs the pipeline's own stage functions. Everything that it does not change is read from
the pipeline's outputs, so variants share data, features, pools and the answer store. The SFT
policy, RL data and offline policies of a seed are those that the pipeline made with the same seed.
So the seeds of variants must be training seeds, and intervals over them cover the whole training.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from lever_plus.config.file import load_params
from lever_plus.config.names import GRPO, RCE, SFT
from lever_plus.config.params import Params
from lever_plus.config.settings import settings_of
from lever_plus.experiments.ablation.results import (
    Place,
    renewed,
    seeds_of,
    working,
    write_results,
)
from lever_plus.experiments.ablation.variants import POOL, find_variant, params_of, stages_to_run
from lever_plus.pipeline import grpo, offline, pool, rl_data, sft, sft_data
from lever_plus.pipeline.costs import requests_to_train
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.training import Track
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.returns import leave_one_out, statistics, total
from lever_plus.vlm.store.cached import StoredVlm

Tracks = Callable[[str, Paths, int], Track]
"""Opens tracked runs, given the variant's name, the paths where it trains, and the seed."""


def run(name: str, paths: Paths, tracks: Tracks, vlm: StoredVlm | None = None) -> Outcome:
    """Run a variant with every seed of `ablations/variants.yaml`.

    Args:
        name: Name of the variant.
        paths: Paths of the pipeline.
        tracks: Opens the tracked runs.
        vlm: The VLM, if it is already open.

    Raises:
        UserError: The variant is not valid, one of its seeds is not a training seed, or another
            process is running the same variant.
    """
    root, variant = paths.root, find_variant(name, paths.root)
    with renewed(name, paths) as fresh:
        os.environ.setdefault("DVC_ROOT", str(root.resolve()))  # where the MLflow store is
        base, params = load_params(root / "params.yaml"), params_of(variant, root)
        stages, seeds = stages_to_run(variant, base, params, root), seeds_of(base, root)
        scores: list[pd.DataFrame] = []
        facts: dict[str, dict[str, Any]] = {}
        for seed in seeds:
            work = working(name, paths) / f"seed{seed}"
            shutil.rmtree(work, ignore_errors=True)  # leftovers of a killed run
            moved = replace(
                paths, moved={stage: work / stage for stage in stages}, metrics_in=work / "metrics"
            )
            track = tracks(name, moved, seed)
            _train(params, moved, stages, variant.trained, seed, track, vlm)
            workspace = Workspace(moved, params.vlm, params.scoring, vlm)
            place = Place(workspace, params.pointer)
            if seed == seeds[0]:
                scores += place.baselines(variant.baselines)
            scores += place.trained(variant.trained, seed, moved.trained)
            start = params.grpo.start
            asked = {m: requests_to_train(moved, m, seed, start) for m in variant.trained}
            facts[f"seed{seed}"] = {"vlm_requests": asked}
            if RCE in stages:
                facts[f"seed{seed}"] |= _describe(params, workspace, seed)
            for method in variant.trained:
                shutil.copytree(moved.trained(method, seed), fresh / f"seed{seed}" / method)
            shutil.rmtree(work, ignore_errors=True)
        write_results(fresh, scores, {"stages": stages, **facts})
    ran, out = ", ".join(stages) or "nothing", paths.variant(name)
    return Outcome(f"{name}: stages run again: {ran}; {len(facts)} seeds in {out}")


def _train(
    params: Params,
    paths: Paths,
    stages: Sequence[str],
    methods: Sequence[str],
    seed: int,
    track: Track,
    vlm: StoredVlm | None,
) -> None:
    """Run the stages in their order, for one seed."""
    needed = {*methods, params.grpo.start} if GRPO in stages else set(methods)
    imitations = methods if stages[-1:] == [SFT] else {*methods, SFT}
    calls: dict[str, Callable[[], Outcome]] = {
        POOL: lambda: pool.run(settings_of(pool.Settings, params), paths),
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


def _describe(params: Params, workspace: Workspace, seed: int) -> dict[str, float]:
    """Return statistics of the RL data's candidates, such as the spread of rewards in groups."""
    groups = workspace.groups(workspace.paths.rl_data(seed), params.reward, params.rl)
    weights = workspace.environment(params.pointer.shots, params.reward).trained_weights
    returns = total(groups.rewards, torch.tensor(weights))
    return statistics(returns, leave_one_out(returns, groups.keep), groups.keep)
