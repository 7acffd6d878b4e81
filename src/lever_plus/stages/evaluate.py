"""Stage evaluate: all policies and baselines -> per-question scores and metrics/summary.json."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from lever_plus.evaluation.baselines import NEAREST, nearest_pointers, random_pointers
from lever_plus.evaluation.evaluate import evaluate_oracle, evaluate_pointers, evaluate_zero_shot
from lever_plus.evaluation.summary import summarise
from lever_plus.params import Params
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Workspace
from lever_plus.vlm.scorer import METRIC


def run(params: Params) -> Outcome:
    """Score every method on the test questions; nothing is chosen here."""
    workspace = Workspace(params)
    scores = pd.concat(_tables(params, workspace), ignore_index=True)
    paths.SCORES.parent.mkdir(parents=True, exist_ok=True)
    made_with: dict[Any, Any] = {"vlm": workspace.vlm.identity, "metric": METRIC}
    scores.attrs = made_with  # kept in the file's metadata
    scores.to_parquet(paths.SCORES, index=False)
    summary = summarise(scores, params.evaluate.resamples)
    marked = {"fallback_scores": int(scores["fallback"].sum())}
    write_metrics(paths.SUMMARY, {**summary, **made_with, **marked})
    return Outcome(
        f"{len(scores)} scores in {paths.SCORES}",
        workspace.vlm.usage,
    )


def _tables(params: Params, workspace: Workspace) -> Iterator[pd.DataFrame]:
    environment, pools, queries = workspace.environment, workspace.pools, workspace.queries("test")
    scorer, shots = environment.scorer, params.pointer.shots
    yield evaluate_zero_shot(scorer, queries)
    for seed in range(params.evaluate.random_seeds):
        pointers = random_pointers(pools, queries, shots, seed)
        yield evaluate_pointers(scorer, pools, "random", seed, queries, pointers)
    for method in NEAREST:
        pointers = nearest_pointers(method, workspace.embeddings, pools, queries, shots)
        yield evaluate_pointers(scorer, pools, method, 0, queries, pointers)
    folders = [("sft", params.seed, paths.SFT)]
    folders += [(m, s, paths.offline(m, s)) for m in params.rce.tau for s in params.training_seeds]
    folders += [("agro", s, paths.offline("agro", s)) for s in params.training_seeds]
    folders += [("grpo", s, paths.grpo(s)) for s in params.training_seeds]
    for method, seed, folder in folders:
        pointers = environment.greedy_pointers(workspace.load_policy(folder), queries)
        yield evaluate_pointers(scorer, pools, method, seed, queries, pointers)
    settings = params.evaluate
    few = queries[: settings.oracle_queries]
    yield evaluate_oracle(scorer, pools, few, shots, settings.oracle_beam)
