"""What the accuracies hide: copied answers, right answers shown, and order against choice.

`copied` and `copied_last`: share of answers that equal the answer of any demonstration, or of the
last. `shown`: share of questions whose own answer stands among the demonstrations'; accuracy is
split by it. A method that is right only where the answer was shown has learned to retrieve. Order
against choice (after arXiv 2511.09700): standard deviation of a question's score over orders of one
set, beside that over different sets.
"""

from collections.abc import Mapping, Sequence
from itertools import islice, permutations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lever_plus.data.examples import Example
from lever_plus.metric.vqa import normalize_answer
from lever_plus.selectors.baselines import RandomSelector
from lever_plus.vlm.scorer import Scorer

Row = dict[str, object]
NOTHING = -2
"""Number of the answer of a demonstration that is not shown: nobody gives it."""


def copy_rates(scores: pd.DataFrame, examples: Mapping[int, Example]) -> list[Row]:
    """Return copy and answer-shown rates of every method at every shot.

    Args:
        scores: The table of `evaluate`; rows without demonstrations are left out.
        examples: All examples by id.
    """
    forms = {i: normalize_answer(example.answer) for i, example in examples.items()}
    numbers: dict[str, int] = {}
    told = {i: numbers.setdefault(form, len(numbers)) for i, form in forms.items()}
    groups = scores.groupby(["method", "shot"], sort=False)
    return [_rates(part, told, numbers) for _, part in groups if part["shot"].iloc[0] > 0]


def _rates(rows: pd.DataFrame, told: Mapping[int, int], numbers: Mapping[str, int]) -> Row:
    """Return the rates of one method at one shot, of answers by number; -1 is told by nobody."""
    given = np.array([numbers.get(normalize_answer(answer), -1) for answer in rows["answer"]])
    asked = np.array([told[query] for query in rows["query_id"]])
    demonstrated = np.full((len(rows), int(rows["shot"].iloc[0])), NOTHING)
    for row, pointer in zip(demonstrated, rows["pointer"], strict=True):
        row[: len(pointer)] = [told[i] for i in pointer]
    last = demonstrated[np.arange(len(rows)), rows["pointer"].map(len).to_numpy() - 1]
    shown = (demonstrated == asked[:, None]).any(axis=1)
    score = rows["vqa_acc_score"].to_numpy()
    return {
        "method": str(rows["method"].iloc[0]),
        "shots": int(rows["shot"].iloc[0]),
        "copied": _share((demonstrated == given[:, None]).any(axis=1)),
        "copied_last": _share(last == given),
        "shown": _share(shown),
        "accuracy_shown": _mean(score[shown]),
        "accuracy_not_shown": _mean(score[~shown]),
    }


def _share(holds: NDArray[np.bool_]) -> float:
    return round(float(np.mean(holds)), 6)


def _mean(values: NDArray[np.float64]) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None


def order_and_choice(
    scorer: Scorer,
    examples: Sequence[Example],
    pools: Sequence[Sequence[Example]],
    pointers: Sequence[Sequence[Example]],
    count: int,
) -> Row:
    """Return the spread of a question's score over orders of one set, and over sets.

    Args:
        scorer: The frozen VLM and the metric.
        examples: Questions with their human answers.
        pools: Pool of each.
        pointers: One set for each, in some order.
        count: Orders of it, and random sets, that are tried.
    """
    shots = len(pointers[0])
    queries = [example.query for example in examples]
    sets = [RandomSelector(seed).select_all(queries, pools, shots) for seed in range(count)]
    orders = [list(islice(permutations(pointer), count)) for pointer in pointers]
    lists = [
        [*ordered, *(drawn[number].examples for drawn in sets)]
        for number, ordered in enumerate(orders)
    ]
    tried = len(orders[0]) + count
    asked = [example for example in examples for _ in range(tried)]
    flat = [pointer for tried_list in lists for pointer in tried_list]
    scored = scorer.score_pointers(asked, flat, "order and choice")
    last = np.array([row[-1].vqa_acc_score for row in scored]).reshape(len(examples), tried)
    ordered_part, drawn_part = last[:, : len(orders[0])], last[:, len(orders[0]) :]
    return {
        "questions": len(examples),
        "orders": len(orders[0]),
        "sets": count,
        "order_spread": round(float(ordered_part.std(axis=1).mean()), 6),
        "set_spread": round(float(drawn_part.std(axis=1).mean()), 6),
    }
