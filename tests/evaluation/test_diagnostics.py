"""Copied answers, right answers that were shown, and order against choice are counted apart."""

from collections.abc import Sequence
from typing import cast

import pandas as pd
import pytest

from lever_plus.data.examples import Example, Query
from lever_plus.evaluation.diagnostics import copy_rates, order_and_choice
from lever_plus.evaluation.evaluate import Row, evaluate_vote
from lever_plus.selectors.base import Selection
from lever_plus.selectors.baselines import FixedSelector
from lever_plus.selectors.best_of import BestOfSamples
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.scorer import Scorer, ShotScore


def example(number: int, answer: str) -> Example:
    return Example(
        image="",
        question=f"What is {number}?",
        answer=answer,
        answers=(answer,) * 10,
        question_id=number,
        image_id=100 + number,
        image_sha256=f"{number:064x}",
    )


EXAMPLES = {0: example(0, "red"), 1: example(1, "red"), 2: example(2, "blue"), 3: example(3, "one")}


class Formula:
    """Scores pointers by a formula over their ids."""

    def __init__(self, by_order: bool) -> None:
        """Let the order count, or only the set."""
        self.by_order = by_order

    def score_pointers(
        self, examples: Sequence[Example], pointers: Sequence[Sequence[Example]], description: str
    ) -> list[list[ShotScore]]:
        assert description
        return [
            [self._score(pointer[: k + 1]) for k in range(len(pointer))]
            for _, pointer in zip(examples, pointers, strict=True)
        ]

    def _score(self, pointer: Sequence[Example]) -> ShotScore:
        ids = [shown.question_id for shown in pointer]
        value = ids[0] % 2 if self.by_order else sum(ids) % 2
        return ShotScore("x", int(value), float(value))


def scores(*rows: tuple[list[int], str, float]) -> pd.DataFrame:
    table = [
        Row("sft", 1, 0, 100, len(pointer), pointer, [], answer, int(score > 0), score, False)
        for pointer, answer, score in rows
    ]
    return pd.DataFrame(table)


def test_copies_and_shown_answers_are_counted() -> None:
    """The query's answer is red, which example 1 shows; two of four answers copy."""
    table = scores(([1, 2], "Red", 1.0), ([1, 2], "blue", 0.0), ([2, 3], "red", 1.0))
    table = pd.concat([table, scores(([2, 3], "green", 0.0))])
    (row,) = copy_rates(table, EXAMPLES)
    assert (row["method"], row["shots"]) == ("sft", 2)
    assert (row["copied"], row["copied_last"], row["shown"]) == (0.5, 0.25, 0.5)
    assert (row["accuracy_shown"], row["accuracy_not_shown"]) == (0.5, 0.5)


def test_without_demonstrations_there_is_nothing_to_copy() -> None:
    assert copy_rates(scores(([], "red", 1.0)), EXAMPLES) == []


@pytest.mark.parametrize("by_order", [True, False])
def test_order_is_told_from_choice(by_order: bool) -> None:
    questions = [example(number, "red") for number in range(20)]
    pool = [example(number, "red") for number in range(100, 120)]
    scorer = cast(Scorer, Formula(by_order))
    found = order_and_choice(scorer, questions, [pool] * 20, [pool[:3]] * 20, count=6)
    assert (found["questions"], found["orders"], found["sets"]) == (20, 6, 6)
    assert (float(str(found["order_spread"])) > 0.3) == by_order
    assert float(str(found["set_spread"])) > 0.3


def test_the_vote_is_the_most_frequent_answer_and_ties_go_to_the_first() -> None:
    twin = example(4, "red")
    pool = [EXAMPLES[2], EXAMPLES[1], twin]
    table = evaluate_vote("vote", FixedSelector(pool), [EXAMPLES[0]], [pool], 3)
    assert list(table["answer"]) == ["blue", "blue", "red"]
    assert list(table["vqa_acc_score"]) == [0.0, 0.0, 1.0]
    assert list(table["image_id"]) == [100] * 3
    assert list(table["method"]) == ["vote"] * 3


class Drawn:
    """Draws the two pointers that a test names."""

    def decode(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int, how: object
    ) -> list[list[Selection]]:
        assert callable(how)
        assert (len(queries), len(pools), shots) == (1, 1, 2)
        pointers = ((2, 3), (1, 3))
        return [[Selection(tuple(EXAMPLES[i] for i in pointer)) for pointer in pointers]]


def test_the_best_of_several_is_chosen_apart_at_every_shot() -> None:
    """The sum is odd for the first shot of 1, 3 and for the second shot of 2, 3."""
    learned, scorer = cast(LearnedSelector, Drawn()), cast(Scorer, Formula(by_order=False))
    best = BestOfSamples(learned, scorer, [EXAMPLES[0]], count=2, seed=0)
    found = best.select_each_shot([EXAMPLES[0].query], [list(EXAMPLES.values())], 2)
    chosen = [[e.question_id for e in selections[0].examples] for selections in found]
    assert chosen == [[1], [2, 3]]
