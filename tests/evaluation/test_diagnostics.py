"""Copies are counted, right answers that were shown are told apart, order is told from choice."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pytest

from lever_plus.data.examples import Example
from lever_plus.data.pools import Pools
from lever_plus.evaluation.diagnostics import copy_rates, order_and_choice
from lever_plus.evaluation.evaluate import COLUMNS, evaluate_best_of, evaluate_vote
from lever_plus.vlm.scorer import Scorer, ShotScore


def example(number: int, answer: str) -> Example:
    return Example(number, 100 + number, "", "", "?", (answer,) * 10, answer)


EXAMPLES = {0: example(0, "red"), 1: example(1, "red"), 2: example(2, "blue"), 3: example(3, "one")}


class Formula:
    """Scores pointers by a formula over their ids."""

    def __init__(self, by_order: bool) -> None:
        """Let the order count, or the set alone."""
        self.by_order = by_order
        self.vlm = SimpleNamespace(examples=EXAMPLES)

    def score_pointers(
        self, queries: Sequence[int], pointers: Sequence[Sequence[int]], description: str
    ) -> list[list[ShotScore]]:
        assert description
        return [[self._score(p[: k + 1]) for k in range(len(p))] for p in pointers if queries]

    def _score(self, pointer: Sequence[int]) -> ShotScore:
        value = pointer[0] % 2 if self.by_order else sum(pointer) % 2
        return ShotScore("x", int(value), float(value))


def scores(*rows: tuple[list[int], str, float]) -> pd.DataFrame:
    table = [
        ("sft", 1, 0, 100, len(pointer), pointer, [], answer, int(score > 0), score, False)
        for pointer, answer, score in rows
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))


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
    pools = Pools({q: tuple(range(10, 30)) for q in range(20)}, "hash")
    pointers = [(10, 11, 12)] * 20
    scorer = cast(Scorer, Formula(by_order))
    found = order_and_choice(scorer, pools, list(range(20)), pointers, count=6)
    assert (found["questions"], found["orders"], found["sets"]) == (20, 6, 6)
    assert (float(str(found["order_spread"])) > 0.3) == by_order
    assert float(str(found["set_spread"])) > 0.3


def test_the_vote_is_the_most_frequent_answer_and_ties_go_to_the_first() -> None:
    table = evaluate_vote(cast(Scorer, Formula(True)), [0], [(2, 1, 1)])
    assert list(table["answer"]) == ["blue", "blue", "red"]
    assert list(table["vqa_acc_score"]) == [0.0, 0.0, 1.0]
    assert list(table["image_id"]) == [100] * 3


def test_the_best_of_several_is_chosen_apart_at_every_shot() -> None:
    scorer = cast(Scorer, Formula(by_order=False))
    table = evaluate_best_of(scorer, "best-of-2", [0], [[(2, 3), (1, 3)]])
    assert [list(p) for p in table["pointer"]] == [[1], [2, 3]]
    assert list(table["vqa_acc_score"]) == [1.0, 1.0]
