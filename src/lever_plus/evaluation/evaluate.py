"""Per-shot evaluation: every method on the same questions, pools, prompts and metric.

A method is a list of pointers a seed; shot k is the first k ICDs of a pointer. The result is one
table, a row a question, method, seed and shot, from which everything else is computed.
"""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from lever_plus.data.pools import Pools
from lever_plus.evaluation.methods import ORACLE, VOTE, ZERO_SHOT
from lever_plus.selectors.baselines import Pointers
from lever_plus.selectors.infoscore import beam_search
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Scorer, ShotScore, score_answer

COLUMNS = (
    "method",
    "seed",
    "query_id",
    "image_id",
    "shot",
    "pointer",
    "step_log_probs",
    "answer",
    "vqa_correct",
    "vqa_acc_score",
    "fallback",
)


def evaluate_pointers(
    scorer: Scorer,
    pools: Pools | None,
    method: str,
    seed: int,
    queries: Sequence[int],
    pointers: Pointers,
    log_probs: Sequence[Sequence[float]] | None = None,
) -> pd.DataFrame:
    """Score one pointer a query at every shot 1..K.

    Args:
        scorer: The frozen VLM and the metric.
        pools: Pool of every query; None: the pointers are not bound to pools.
        method: Name of the rows.
        seed: Training or sampling seed of the rows.
        queries: Query ids.
        pointers: Example ids.
        log_probs: Of every pick, where a policy made them.

    Raises:
        PointerError: A pointer names an example outside its query's pool, or one twice.
    """
    if pools:
        for query, pointer in zip(queries, pointers, strict=True):
            pools.positions(query, pointer)
    scored = scorer.score_pointers(queries, pointers, method)
    steps = log_probs or [[] for _ in pointers]
    rows: list[tuple[object, ...]] = [
        (method, seed, *_question(scorer, query), shot, *_prompt(pointer, step, shot), *_score(s))
        for query, pointer, step, scores in zip(queries, pointers, steps, scored, strict=True)
        for shot, s in enumerate(scores, start=1)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_zero_shot(scorer: Scorer, queries: Sequence[int]) -> pd.DataFrame:
    """Score every query without demonstrations."""
    scores = scorer.score([Request((), query) for query in queries], ZERO_SHOT)
    rows: list[tuple[object, ...]] = [
        (ZERO_SHOT, 0, *_question(scorer, q), 0, [], [], *_score(s))
        for q, s in zip(queries, scores, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_vote(scorer: Scorer, queries: Sequence[int], pointers: Pointers) -> pd.DataFrame:
    """Score the most frequent answer among the first k ICDs, without the VLM; ties to the first."""
    examples = scorer.vlm.examples
    rows: list[tuple[object, ...]] = []
    for query, pointer in zip(queries, pointers, strict=True):
        for shot in range(1, len(pointer) + 1):
            answers = Counter(examples[i].answer for i in pointer[:shot])
            score = score_answer(answers.most_common(1)[0][0], examples[query])
            place = (VOTE, 0, *_question(scorer, query), shot, *_prompt(pointer, [], shot))
            rows.append((*place, *_score(score)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_best_of(
    scorer: Scorer, method: str, queries: Sequence[int], groups: Sequence[Pointers]
) -> pd.DataFrame:
    """Score the best of each query's pointers, apart at every shot: what a sampler could reach."""
    flat = [pointer for group in groups for pointer in group]
    repeated = [q for q, group in zip(queries, groups, strict=True) for _ in group]
    scored = iter(scorer.score_pointers(repeated, flat, method))
    rows: list[tuple[object, ...]] = []
    for query, group in zip(queries, groups, strict=True):
        found = [next(scored) for _ in group]
        for shot in range(1, len(group[0]) + 1):
            accuracies = [scores[shot - 1].vqa_acc_score for scores in found]
            best = accuracies.index(max(accuracies))
            place = (method, 0, *_question(scorer, query), shot, *_prompt(group[best], [], shot))
            rows.append((*place, *_score(found[best][shot - 1])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_oracle(
    scorer: Scorer, pools: Pools, queries: Sequence[int], shots: int, beam: int
) -> pd.DataFrame:
    """Score what InfoScore beam search finds with the true answer, apart at every shot.

    A search's lower bound on what any policy could reach, not a method: it sees the answer.
    """
    steps = beam_search(
        scorer.vlm, pools, queries, shots=shots, beam=beam, description="oracle search"
    )
    rows: list[tuple[object, ...]] = []
    for shot, found in enumerate(steps, start=1):
        pointers = [found[query][0].pointer for query in queries]
        scores = scorer.score([Request(p, q) for q, p in zip(queries, pointers, strict=True)])
        rows += [
            (ORACLE, 0, *_question(scorer, query), shot, list(pointer), [], *_score(score))
            for query, pointer, score in zip(queries, pointers, scores, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _question(scorer: Scorer, query: int) -> tuple[int, int]:
    return query, scorer.vlm.examples[query].image_id


def _prompt(
    pointer: Sequence[int], log_probs: Sequence[float], shot: int
) -> tuple[list[int], list[float]]:
    return list(pointer[:shot]), [round(value, 6) for value in log_probs[:shot]]


def _score(score: ShotScore) -> tuple[str, int, float, bool]:
    return score.answer, score.vqa_correct, score.vqa_acc_score, score.fallback
