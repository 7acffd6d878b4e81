"""Stage evaluate: all policies and baselines -> per-question scores and metrics/summary.json."""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from lever_plus.config.base import Section
from lever_plus.config.evaluate import EvaluateParams
from lever_plus.config.names import GRPO_STOP, SFT, Targets
from lever_plus.config.offline import TauSchedule
from lever_plus.config.policy import PointerParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.stop import StopParams
from lever_plus.config.vlm import VlmParams
from lever_plus.data.examples import Example
from lever_plus.evaluation.costs import Costs, with_costs
from lever_plus.evaluation.diagnostics import copy_rates, order_and_choice
from lever_plus.evaluation.evaluate import evaluate_selector, evaluate_vote, evaluate_zero_shot
from lever_plus.evaluation.instructions import BestInstruction, best_instruction
from lever_plus.evaluation.methods import (
    DIVERSE,
    FIXED,
    INSTRUCTED,
    ORACLE,
    RANDOM,
    STTR_AS_MANY,
    VOTE,
    ZERO_SHOT,
    Methods,
    best_of_name,
    methods_of,
)
from lever_plus.evaluation.price_curve import price_rows
from lever_plus.evaluation.summary import accuracies, summarise
from lever_plus.features.similarities import SIMILARITIES, STTR
from lever_plus.files.writing import replacing_all
from lever_plus.pipeline.costs import requests_to_train
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.selectors.base import Selector, select_all
from lever_plus.selectors.baselines import (
    AsManySelector,
    DiverseSelector,
    FixedSelector,
    RandomSelector,
    SimilaritySelector,
    fixed_candidates,
)
from lever_plus.selectors.best_of import BestOfSamples
from lever_plus.selectors.infoscore import InfoScoreSearch
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.selectors.registry import Context, make_selector, selector_names
from lever_plus.vlm.scorer import METRIC, Scorer
from lever_plus.vlm.store.cached import StoredVlm

ORDERS = 8
"""How many orders of a set, and how many random sets, the order diagnostics try."""


class Settings(Section):
    """The values of params.yaml that the stage reads."""

    seed: int
    training_seeds: list[int]
    evaluate: EvaluateParams
    pointer: PointerParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    schedules: Annotated[dict[str, TauSchedule], From("rce.tau")]
    targets: Annotated[Targets, From("sft.targets")]
    stop: StopParams | None
    start: Annotated[str, From("grpo.start")]
    pool_policy: Annotated[str, From("pool.policy")]


class Entry(NamedTuple):
    """A row of the tables: a selector under a name and a seed, on some of the questions.

    `requests` counts the requests to the VLM that training or choosing the selector took; None if
    that is not known.
    """

    method: str
    seed: int
    selector: Selector
    questions: list[Example]
    requests: int | None = 0


def run(settings: Settings, paths: Paths, vlm: StoredVlm | None = None) -> Outcome:
    """Score every method on the test questions; nothing is chosen on them."""
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    costs, instructed = Costs(), _best_instruction(settings, workspace)
    scores = pd.concat(_tables(settings, workspace, costs, instructed), ignore_index=True)
    made_with: dict[Any, Any] = {"vlm": workspace.vlm.identity, "metric": METRIC}
    scores.attrs = made_with  # kept in the file's metadata
    found = summarise(scores, _methods(settings), settings.evaluate.resamples)
    summary = with_costs(found, scores, costs.requests)
    marked = {"fallback_scores": int(scores["fallback"].sum())}
    tried = instructed.rows if instructed else []
    diagnostics = {**_diagnostics(settings, workspace, scores), "instructions": tried}
    files = {
        paths.summary: {**summary, **made_with, **marked},
        paths.metrics / "accuracy.json": accuracies(summary),
        paths.metrics / "diagnostics.json": diagnostics,
        paths.stop: _price_curve(settings, workspace),
    }
    with replacing_all([paths.scores, *files]) as (table, *metrics):
        scores.to_parquet(table, index=False)
        for path, values in zip(metrics, files.values(), strict=True):
            write_metrics(path, values)
    write_metrics(paths.timing, costs.timing())
    return Outcome(f"{len(scores)} scores in {paths.scores}", workspace.vlm.usage)


def _methods(settings: Settings) -> Methods:
    evaluate = settings.evaluate
    names = selector_names(evaluate.selectors)
    return methods_of(
        settings.schedules,
        settings.targets,
        evaluate.best_of,
        names,
        stops=settings.stop is not None,
        instructed=bool(evaluate.instructions),
    )


def _tables(
    settings: Settings, workspace: Workspace, costs: Costs, instructed: BestInstruction | None
) -> Iterator[pd.DataFrame]:
    """Yield the scores of all methods, and record what the methods cost."""
    questions, shots = workspace.of_split("test"), settings.pointer.shots
    ids = (question.question_id for question in questions)
    pool_of = dict(zip(ids, workspace.pools_of(questions), strict=True))
    yield evaluate_zero_shot(workspace.scorer, ZERO_SHOT, questions)
    costs.requests[ZERO_SHOT] = [0]
    if instructed is not None:
        yield evaluate_zero_shot(Scorer(instructed.vlm), INSTRUCTED, questions)
        costs.requests[INSTRUCTED] = [instructed.requests]
    for entry in _entries(settings, workspace, questions):
        method, seed, selector, asked, requests = entry
        pools = [pool_of[question.question_id] for question in asked]
        seconds: list[float] = []
        yield evaluate_selector(
            workspace.scorer, method, seed, selector, asked, pools, shots, seconds.append
        )
        if requests is not None:
            costs.requests.setdefault(method, []).append(requests)
        if method not in (best_of_name(settings.evaluate.best_of), ORACLE):
            milliseconds = 1000 * seconds[0] / len(asked)
            costs.milliseconds.setdefault(method, []).append(milliseconds)
        if method == STTR:
            yield evaluate_vote(VOTE, selector, asked, pools, shots)
            costs.requests[VOTE] = [0]


def _entries(settings: Settings, workspace: Workspace, questions: list[Example]) -> Iterator[Entry]:
    """Yield all selectors, in the order of the tables."""
    evaluate, features = settings.evaluate, workspace.features
    for seed in range(evaluate.random_seeds):
        yield Entry(RANDOM, seed, RandomSelector(seed), questions)
    for similarity in SIMILARITIES:
        yield Entry(similarity, 0, SimilaritySelector(features, similarity), questions)
    diverse = DiverseSelector(features, evaluate.diverse_relevance)
    yield Entry(DIVERSE, 0, diverse, questions)
    before = workspace.scorer.requests
    fixed = _best_fixed(settings, workspace)
    yield Entry(FIXED, 0, fixed, questions, workspace.scorer.requests - before)
    context = Context(features, workspace.vlm, settings.seed)
    for own in evaluate.selectors:
        (name,) = selector_names([own])
        yield Entry(name, 0, make_selector(own, context), questions, None)
    for method in _methods(settings).trained:
        for seed in settings.training_seeds:
            price = settings.pointer.price if method == GRPO_STOP else None
            selector = workspace.selector(workspace.paths.trained(method, seed), price)
            if price is not None:
                as_many = AsManySelector(SimilaritySelector(features, STTR), selector)
                yield Entry(STTR_AS_MANY, seed, as_many, questions, None)
            requests = requests_to_train(workspace.paths, method, seed, settings.start)
            yield Entry(method, seed, selector, questions, requests)
    # These two see the true answers; they run on the first questions only.
    few = questions[: evaluate.oracle_queries]
    learned = _first_sft(settings, workspace)
    best = BestOfSamples(learned, workspace.scorer, few, evaluate.best_of, settings.seed)
    yield Entry(best_of_name(evaluate.best_of), 0, best, few, None)
    search = InfoScoreSearch(workspace.vlm, few, evaluate.oracle_beam)
    yield Entry(ORACLE, 0, search, few, None)


def _price_curve(settings: Settings, workspace: Workspace) -> dict[str, Any]:
    """Return what the policies that stop achieve at every price that they were trained with."""
    if settings.stop is None:
        return {"rows": []}
    questions, shots = workspace.of_split("test"), settings.pointer.shots
    pools = workspace.pools_of(questions)
    found: dict[float, list[pd.DataFrame]] = {}
    for price in settings.stop.prices:
        for seed in settings.training_seeds:
            selector = workspace.selector(workspace.paths.trained(GRPO_STOP, seed), price)
            table = evaluate_selector(
                workspace.scorer, GRPO_STOP, seed, selector, questions, pools, shots
            )
            found.setdefault(price, []).append(table)
    tables = {price: pd.concat(each, ignore_index=True) for price, each in found.items()}
    return {
        "price_per": settings.pointer.price_per,
        "rows": price_rows(tables, settings.evaluate.resamples),
    }


def _first_sft(settings: Settings, workspace: Workspace) -> LearnedSelector:
    """Return the SFT selector of the first training seed.

    Best-of-n and the order diagnostics use only this one: they do not compare trainings, and every
    further training would cost as many requests to the VLM again.
    """
    return workspace.selector(workspace.paths.trained(SFT, settings.training_seeds[0]))


def _best_instruction(settings: Settings, workspace: Workspace) -> BestInstruction | None:
    """Return the best of all instructions on dev; None if params.yaml names none to try.

    The VLM's own instruction takes part.
    """
    evaluate, vlm = settings.evaluate, workspace.vlm
    if not evaluate.instructions:
        return None
    texts = list(dict.fromkeys([vlm.prompt.instruction, *evaluate.instructions]))
    return best_instruction(vlm, texts, workspace.of_split("dev"), evaluate.resamples)


def _best_fixed(settings: Settings, workspace: Workspace) -> FixedSelector:
    """Return the selector of one fixed pointer: the one that scores best over all dev queries."""
    dev, count = workspace.of_split("dev"), settings.evaluate.fixed_pointers
    pools = [workspace.pools.of(example.question_id) for example in dev]
    drawn = fixed_candidates(pools, settings.pointer.shots, count, settings.seed)
    pointers = [[workspace.examples[i] for i in pointer] for pointer in drawn]
    scored = workspace.scorer.score_pointers(
        [example for _ in pointers for example in dev],
        [pointer for pointer in pointers for _ in dev],
        "fixed pointer, on dev",
    )
    means = np.array([[s.vqa_acc_score for s in row] for row in scored]).reshape(count, -1)
    best = pointers[int(means.mean(axis=1).argmax())]
    return FixedSelector(best, bound_to_pools=settings.pool_policy == "shared")


def _diagnostics(settings: Settings, workspace: Workspace, scores: pd.DataFrame) -> dict[str, Any]:
    """Return copy rates of all methods, and how much order matters compared with choice."""
    few = workspace.of_split("test", settings.evaluate.order_queries)
    pools, selector = workspace.pools_of(few), _first_sft(settings, workspace)
    queries = [example.query for example in few]
    chosen = select_all(selector, queries, pools, settings.pointer.shots)
    sets = [selection.examples for selection in chosen]
    return {
        "copy": copy_rates(scores, workspace.examples),
        "order": order_and_choice(workspace.scorer, few, pools, sets, ORDERS),
    }
