"""Per-shot evaluation: every selector on the same questions, pools, prompts and metric.

Shot k is the prompt of the first k demonstrations; of a selector that stops, of at most k. The
result is one table, a row a question, method, seed and shot, from which all else is computed.
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
    """One answer: who chose what for which question, and what came of it.

    shot: demonstrations that were asked for; pointer: ids of those that were shown, fewer where the
    selector stopped; step_log_probs: of every pick, where a policy made them; prompt_tokens: length
    of the prompt, None where the VLM does not say.
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
    """Score what a selector chooses for every example at every shot 1..K.

    Args:
        scorer: The frozen VLM and the metric.
        method: Name of the rows.
        seed: Training or sampling seed of the rows.
        selector: Sees the queries of the examples, not their answers.
        examples: Questions with their human answers.
        pools: Pool of each.
        shots: Largest number of demonstrations.
        took: Gets the seconds that the selection took.

    Raises:
        PointerError: The selector chose an example outside a pool, or one twice.
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
    """Score every example without demonstrations."""
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
    """Score the most frequent answer among the ICDs; ties go to the first. There is no prompt."""

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
    """Return every example with its selections at shots 1..K, in this order."""
    found = select_each_shot(selector, [example.query for example in examples], pools, shots)
    return [
        (example, shot, selections[number])
        for number, example in enumerate(examples)
        for shot, selections in enumerate(found, start=1)
    ]


def _tokens(scorer: Scorer, asked: Sequence[Asked]) -> Sequence[int | None]:
    """Return the length of each prompt; None of each where the VLM does not say."""
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
    return table.astype({"prompt_tokens": "Int64"})  # which also holds that nothing is known
