"""One variant with one seed after another: trained in a folder of its own, then evaluated.

Everything that the variant does not change is linked from the pipeline's outputs, so that variants
share data, models, pools, and the answer store; the very stage functions run. SFT, where it runs
anew, takes the training seed too: intervals over seeds then hold the whole training.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from lever_plus.config.file import load_params
from lever_plus.config.names import GRPO, RCE, SFT
from lever_plus.config.params import Params
from lever_plus.evaluation.evaluate import evaluate_pointers
from lever_plus.experiments.ablation.variants import (
    find_variant,
    params_of,
    read_variants,
    stages_to_run,
)
from lever_plus.pipeline import grpo, paths, rl_data, sft, sft_data
from lever_plus.pipeline import offline as rce
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.workspace import Track, Workspace
from lever_plus.training.returns import leave_one_out, statistics, total
from lever_plus.vlm.usage import Usage

Tracks = Callable[[str, int], Track]
"""Opens the tracked runs of a variant's seed, given the variant and the seed."""


def run(name: str, tracks: Tracks) -> Outcome:
    """Run a variant with every seed of `ablations/variants.yaml`."""
    root, variant = Path.cwd(), find_variant(name)
    os.environ.setdefault("DVC_ROOT", str(root))  # where the MLflow store is
    base, params = load_params(), params_of(variant, root)
    stages = stages_to_run(variant, base, params, root)
    out = paths.ablation(name)
    shutil.rmtree(out, ignore_errors=True)
    scores: list[pd.DataFrame] = []
    facts: dict[str, dict[str, float]] = {}
    for seed in read_variants().seeds:
        work = root / paths.CACHE / "ablations" / name / f"seed{seed}"
        shutil.rmtree(work, ignore_errors=True)  # what a killed run has left
        _link(root, work, stages)
        with contextlib.chdir(work):
            usage = _train(params, stages, variant.methods, seed, tracks(name, seed))
            scores.append(_evaluate(params, variant.methods, seed))
            facts[f"seed{seed}"] = {"vlm_requests": usage}
            if RCE in stages:
                facts[f"seed{seed}"] |= _describe(params)
        for method in variant.methods:
            target = paths.ablation(name, method, seed)
            shutil.copytree(work / paths.trained(method, seed), target)
        shutil.rmtree(work)
    out.mkdir(parents=True, exist_ok=True)
    pd.concat(scores, ignore_index=True).to_parquet(out / "scores.parquet", index=False)
    text = json.dumps({"stages": stages, **facts}, indent=2, sort_keys=True)
    (out / "facts.json").write_text(text + "\n", encoding="utf-8")
    return Outcome(f"{name}: {', '.join(stages)} run anew; {len(facts)} seeds in {out}")


def _link(root: Path, work: Path, stages: list[str]) -> None:
    """Make a folder in which earlier outputs are linked and those of `stages` are not there yet."""
    (work / paths.ARTIFACTS).mkdir(parents=True)
    shared = {"prepare", "images", "pretrain", "embed", "pool", "sft_data", SFT, "rl_data", RCE}
    for folder in shared - set(stages):
        (work / paths.ARTIFACTS / folder).symlink_to(root / paths.ARTIFACTS / folder)
    (work / paths.CACHE).symlink_to(root / paths.CACHE)


def _train(params: Params, stages: list[str], methods: list[str], seed: int, track: Track) -> int:
    """Run stages in the current folder; return how many requests the VLM would have had alone."""
    calls: dict[str, Callable[[], Outcome]] = {
        "sft_data": lambda: sft_data.run(params),
        SFT: lambda: sft.run(params, seed, track),
        "rl_data": lambda: rl_data.run(params),
        RCE: lambda: rce.run(params, seed, track, {*methods, params.grpo.start}),
        GRPO: lambda: grpo.run(params, seed, track),
    }
    usages = [calls[stage]().usage for stage in stages]
    return sum(usage.requests for usage in usages if isinstance(usage, Usage))


def _evaluate(params: Params, methods: list[str], seed: int) -> pd.DataFrame:
    """Score the methods on the test questions; nothing is chosen here."""
    workspace = Workspace(params)
    environment, queries = workspace.environment, workspace.queries("test")
    tables = []
    for method in methods:
        policy = workspace.load_policy(paths.trained(method, seed))
        picked = environment.greedy_decoded(policy, queries)
        scorer, pools = environment.scorer, workspace.pools
        tables.append(evaluate_pointers(scorer, pools, method, seed, queries, *picked))
    return pd.concat(tables, ignore_index=True)


def _describe(params: Params) -> dict[str, float]:
    """Return what the candidates of the RL data give: reward and its spread inside groups."""
    workspace = Workspace(params)
    groups = workspace.groups()
    returns = total(groups.rewards, torch.tensor(workspace.environment.shot_weights))
    return statistics(returns, leave_one_out(returns, groups.keep), groups.keep)
