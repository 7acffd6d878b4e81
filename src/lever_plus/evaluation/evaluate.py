"""Per-shot evaluation: every method on the same questions, pools, prompts and metric.

A method is a list of pointers a seed; shot k is the first k ICDs of a pointer. The result is one
table, a row a question, method, seed and shot, from which everything else is computed.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from lever_plus.data.pool import Pools
from lever_plus.evaluation.baselines import Pointers
from lever_plus.rl.infoscore import beam_search
from lever_plus.vlm.request import Request
from lever_plus.vlm.scorer import Scorer, ShotScore

COLUMNS = (
    "method",
    "seed",
    "query_id",
    "shot",
    "pointer",
    "answer",
    "vqa_correct",
    "vqa_acc_score",
    "fallback",
)


def evaluate_pointers(
    scorer: Scorer, pools: Pools, method: str, seed: int, queries: Sequence[int], pointers: Pointers
) -> pd.DataFrame:
    """Score one pointer a query at every shot 1..K.

    Raises:
        PointerError: A pointer names an example outside its query's pool, or one twice.
    """
    for query, pointer in zip(queries, pointers, strict=True):
        pools.positions(query, pointer)
    scored = scorer.score_pointers(queries, pointers, method)
    rows = [
        _row(method, seed, query, pointer[:shot], score)
        for query, pointer, scores in zip(queries, pointers, scored, strict=True)
        for shot, score in enumerate(scores, start=1)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_zero_shot(scorer: Scorer, queries: Sequence[int]) -> pd.DataFrame:
    """Score every query without demonstrations."""
    scores = scorer.score([Request((), query) for query in queries], "zero-shot")
    rows = [_row("zero-shot", 0, q, (), s) for q, s in zip(queries, scores, strict=True)]
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
    rows = []
    for found in steps:
        pointers = [found[query][0].pointer for query in queries]
        scores = scorer.score([Request(p, q) for q, p in zip(queries, pointers, strict=True)])
        rows += [
            _row("oracle", 0, query, pointer, score)
            for query, pointer, score in zip(queries, pointers, scores, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(
    method: str, seed: int, query: int, pointer: tuple[int, ...], score: ShotScore
) -> Mapping[str, object]:
    return {
        "method": method,
        "seed": seed,
        "query_id": query,
        "shot": len(pointer),
        "pointer": list(pointer),
        "answer": score.answer,
        "vqa_correct": score.vqa_correct,
        "vqa_acc_score": score.vqa_acc_score,
        "fallback": score.fallback,
    }
