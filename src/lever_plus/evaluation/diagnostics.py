"""What accuracies hide: copied answers, shown answers, and whether order or choice matters more.

`copied` and `copied_last` are the shares of answers that equal the answer of any demonstration, or
of the last one. `shown` is the share of questions whose own answer is among the answers of the
demonstrations; accuracy is also given for these questions and for the others. A method that is
right only when the answer was shown has learned to retrieve answers.

Order against choice (after arXiv 2511.09700) compares the standard deviation of a question's score
over orders of one set of demonstrations with that over different sets.
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
"""Number in place of an answer where a pointer is shorter than the shot; it equals no answer."""


def copy_rates(scores: pd.DataFrame, examples: Mapping[int, Example]) -> list[Row]:
    """Return the shares of copied and of shown answers, for each method and shot.

    Args:
        scores: The score table of `evaluate`; rows without demonstrations are left out.
        examples: All examples by id.

    Returns:
        Rows with method, shots, copied, copied_last, shown, accuracy_shown, accuracy_not_shown (see
        the module); an accuracy is None if there are no such questions.
    """
    forms = {i: normalize_answer(example.answer) for i, example in examples.items()}
    numbers: dict[str, int] = {}
    told = {i: numbers.setdefault(form, len(numbers)) for i, form in forms.items()}
    groups = scores.groupby(["method", "shot"], sort=False)
    return [_rates(part, told, numbers) for _, part in groups if part["shot"].iloc[0] > 0]


def _rates(rows: pd.DataFrame, told: Mapping[int, int], numbers: Mapping[str, int]) -> Row:
    """Return the shares of one method at one shot; -1 is an answer that no example has."""
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
    """Return how much a question's score varies over orders of one set, and over sets.

    Args:
        scorer: The frozen VLM and the metric.
        examples: Questions with their human answers.
        pools: The pool of each question.
        pointers: A set of demonstrations for each question, in any order.
        count: How many orders of that set, and how many random sets, are tried.

    Returns:
        questions, orders, sets: the numbers of each; order_spread, set_spread: standard deviations
        of a question's VQA accuracy, as means over questions.
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
