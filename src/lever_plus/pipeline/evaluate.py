"""Stage evaluate: all policies and baselines -> per-question scores and metrics/summary.json."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from lever_plus.config.names import AGRO, GRPO, SFT
from lever_plus.config.params import Params
from lever_plus.evaluation.diagnostics import copy_rates, order_and_choice
from lever_plus.evaluation.evaluate import (
    evaluate_best_of,
    evaluate_oracle,
    evaluate_pointers,
    evaluate_vote,
    evaluate_zero_shot,
)
from lever_plus.evaluation.methods import DIVERSE, FIXED, RANDOM, best_of_name, methods_of
from lever_plus.evaluation.summary import accuracies, summarise
from lever_plus.features.similarities import SIMILARITIES, STTR
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.decoding import sample
from lever_plus.selectors.baselines import (
    diverse_pointers,
    fixed_candidates,
    nearest_pointers,
    random_pointers,
)
from lever_plus.vlm.scorer import METRIC

ORDERS = 8
"""Orders of a set, and random sets, that the order diagnostics try."""


def run(params: Params) -> Outcome:
    """Score every method on the test questions; nothing is chosen on them."""
    workspace = Workspace(params)
    scores = pd.concat(_tables(params, workspace), ignore_index=True)
    paths.SCORES.parent.mkdir(parents=True, exist_ok=True)
    made_with: dict[Any, Any] = {"vlm": workspace.vlm.identity, "metric": METRIC}
    scores.attrs = made_with  # kept in the file's metadata
    scores.to_parquet(paths.SCORES, index=False)
    methods = methods_of(params.rce.tau, params.evaluate.best_of)
    summary = summarise(scores, methods, params.evaluate.resamples)
    marked = {"fallback_scores": int(scores["fallback"].sum())}
    write_metrics(paths.SUMMARY, {**summary, **made_with, **marked})
    write_metrics(paths.METRICS / "accuracy.json", accuracies(summary))
    write_metrics(paths.METRICS / "diagnostics.json", _diagnostics(params, workspace, scores))
    return Outcome(
        f"{len(scores)} scores in {paths.SCORES}",
        workspace.vlm.usage,
    )


def _tables(params: Params, workspace: Workspace) -> Iterator[pd.DataFrame]:
    queries = workspace.queries("test")
    yield evaluate_zero_shot(workspace.environment.scorer, queries)
    yield from _baselines(params, workspace, queries)
    yield from _policies(params, workspace, queries)
    yield from _ceilings(params, workspace, queries[: params.evaluate.oracle_queries])


def _baselines(params: Params, workspace: Workspace, queries: list[int]) -> Iterator[pd.DataFrame]:
    settings, shots = params.evaluate, params.pointer.shots
    pools, features, scorer = workspace.pools, workspace.embeddings, workspace.environment.scorer
    for seed in range(settings.random_seeds):
        pointers = random_pointers(pools, queries, shots, seed)
        yield evaluate_pointers(scorer, pools, RANDOM, seed, queries, pointers)
    for method in SIMILARITIES:
        pointers = nearest_pointers(method, features, pools, queries, shots)
        yield evaluate_pointers(scorer, pools, method, 0, queries, pointers)
        if method == STTR:
            yield evaluate_vote(scorer, queries, pointers)
    pointers = diverse_pointers(features, pools, queries, shots, settings.diverse_relevance)
    yield evaluate_pointers(scorer, pools, DIVERSE, 0, queries, pointers)
    fixed = _fixed_pointer(params, workspace)
    bound = pools if params.pool.policy == "shared" else None
    yield evaluate_pointers(scorer, bound, FIXED, 0, queries, [fixed] * len(queries))


def _fixed_pointer(params: Params, workspace: Workspace) -> tuple[int, ...]:
    """Return the one pointer that scores best before all dev queries."""
    dev, count = workspace.queries("dev"), params.evaluate.fixed_pointers
    drawn = fixed_candidates(workspace.pools, dev, params.pointer.shots, count, params.seed)
    asked = [query for _ in drawn for query in dev]
    scored = workspace.environment.scorer.score_pointers(
        asked, [pointer for pointer in drawn for _ in dev], "fixed pointer, on dev"
    )
    means = np.array([[s.vqa_acc_score for s in row] for row in scored]).reshape(count, -1)
    return drawn[int(means.mean(axis=1).argmax())]


def _policies(params: Params, workspace: Workspace, queries: list[int]) -> Iterator[pd.DataFrame]:
    scorer, pools = workspace.environment.scorer, workspace.pools
    trained = [(SFT, params.seed)]
    trained += [(m, s) for m in (*params.rce.tau, AGRO, GRPO) for s in params.training_seeds]
    for method, seed in trained:
        policy = workspace.load_policy(paths.trained(method, seed))
        picked = workspace.environment.greedy_decoded(policy, queries)
        yield evaluate_pointers(scorer, pools, method, seed, queries, *picked)


def _ceilings(params: Params, workspace: Workspace, queries: list[int]) -> Iterator[pd.DataFrame]:
    """Score what sees the true answer: the best of n samples, and the InfoScore search."""
    settings, shots, environment = params.evaluate, params.pointer.shots, workspace.environment
    policy, generator = workspace.load_policy(paths.SFT), torch.Generator().manual_seed(params.seed)
    encoded = environment.encode(policy, queries)
    drawn = sample(policy, encoded, shots, settings.best_of, 1.0, generator)
    groups = environment.example_ids(queries, drawn.pointers)
    name = best_of_name(settings.best_of)
    yield evaluate_best_of(environment.scorer, name, queries, groups)
    yield evaluate_oracle(environment.scorer, workspace.pools, queries, shots, settings.oracle_beam)


def _diagnostics(params: Params, workspace: Workspace, scores: pd.DataFrame) -> dict[str, Any]:
    """Return copy rates of all methods, and how much order matters beside choice."""
    few = workspace.queries("test", params.evaluate.order_queries)
    environment, pools = workspace.environment, workspace.pools
    sets = environment.greedy_pointers(workspace.load_policy(paths.SFT), few)
    examples = environment.scorer.vlm.examples
    return {
        "copy": copy_rates(scores, examples),
        "order": order_and_choice(environment.scorer, pools, few, sets, ORDERS),
    }
