"""Evaluation at each shot: all selectors on the same questions, pools, prompts and metric.

Shot k is the prompt of the first k demonstrations (at most k if a selector can stop). The result is
the score table, with one row per question, method, seed and shot; all figures are computed from it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from lever_plus.data.examples import Example
from lever_plus.selectors.base import Selection, Selector, select_each_shot
from lever_plus.vlm.scorer import Asked, Scorer, ShotScore, score_answer


class Row(NamedTuple):
    """One answer: the method, the question, the demonstrations, the answer and its score.

    shot: how many demonstrations were asked for; pointer: ids of those that were shown, fewer than
    `shot` if the selector stopped; step_log_probs: log-probability of each pick, if a policy made
    it; prompt_tokens: length of the prompt in tokens, None if it is not known.
    """

    method: str
    seed: int
    query_id: int
    image_id: int
    shot: int
    pointer: list[int]
    step_log_probs: list[float]
    answer: str
    vqa_correct: int
    vqa_acc_score: float
    fallback: bool
    prompt_tokens: int | None = None


def evaluate_selector(
    scorer: Scorer,
    method: str,
    seed: int,
    selector: Selector,
    examples: Sequence[Example],
    pools: Sequence[Sequence[Example]],
    shots: int,
    took: Callable[[float], object] | None = None,
) -> pd.DataFrame:
    """Score the demonstrations that a selector chooses for each example at each shot 1..K.

    Args:
        scorer: The frozen VLM and the metric.
        method: Name of the method in the rows.
        seed: Training or sampling seed in the rows.
        selector: The selector; it sees the queries of the examples, not their answers.
        examples: Questions with their human answers.
        pools: The pool of each question.
        shots: Largest number of demonstrations.
        took: Called with the seconds that the selection took.

    Returns:
        The score table, with the columns of `Row`.

    Raises:
        PointerError: The selector chose an example outside a pool, or the same one twice.
    """
    begun = time.perf_counter()
    chosen = _chosen(selector, examples, pools, shots)
    if took is not None:
        took(time.perf_counter() - begun)
    asked = [Asked(selection.examples, example) for example, _, selection in chosen]
    scores, tokens = scorer.score(asked, method), _tokens(scorer, asked)
    return _table(
        _row(method, seed, example, shot, selection, score, length)
        for (example, shot, selection), score, length in zip(chosen, scores, tokens, strict=True)
    )


def evaluate_zero_shot(scorer: Scorer, method: str, examples: Sequence[Example]) -> pd.DataFrame:
    """Score each example without demonstrations."""
    asked, nothing = [Asked((), example) for example in examples], Selection(())
    scores, tokens = scorer.score(asked, method), _tokens(scorer, asked)
    return _table(
        _row(method, 0, example, 0, nothing, score, length)
        for example, score, length in zip(examples, scores, tokens, strict=True)
    )


def evaluate_vote(
    method: str,
    selector: Selector,
    examples: Sequence[Example],
    pools: Sequence[Sequence[Example]],
    shots: int,
) -> pd.DataFrame:
    """Score the most frequent answer of the demonstrations, without the VLM.

    Of answers that are equally frequent, the first wins.
    """

    def voted(selection: Selection) -> str:
        return Counter(shown.answer for shown in selection.examples).most_common(1)[0][0]

    return _table(
        _row(
            method,
            0,
            example,
            shot,
            Selection(selection.examples),
            score_answer(voted(selection), example),
            0,
        )
        for example, shot, selection in _chosen(selector, examples, pools, shots)
    )


def _chosen(
    selector: Selector,
    examples: Sequence[Example],
    pools: Sequence[Sequence[Example]],
    shots: int,
) -> list[tuple[Example, int, Selection]]:
    """Return (example, shot, selection) for each example and shot 1..K, ordered by example."""
    found = select_each_shot(selector, [example.query for example in examples], pools, shots)
    return [
        (example, shot, selections[number])
        for number, example in enumerate(examples)
        for shot, selections in enumerate(found, start=1)
    ]


def _tokens(scorer: Scorer, asked: Sequence[Asked]) -> Sequence[int | None]:
    """Return the length of each prompt in tokens; None for each if that is not known."""
    return scorer.prompt_tokens(asked) or [None] * len(asked)


def _row(
    method: str,
    seed: int,
    example: Example,
    shot: int,
    selection: Selection,
    score: ShotScore,
    tokens: int | None,
) -> Row:
    return Row(
        method,
        seed,
        example.question_id,
        example.image_id,
        shot,
        [shown.question_id for shown in selection.examples],
        [round(value, 6) for value in selection.log_probs],
        score.answer,
        score.vqa_correct,
        score.vqa_acc_score,
        score.fallback,
        tokens,
    )


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=list(Row._fields))
    return table.astype({"prompt_tokens": "Int64"})  # an integer type with missing values
