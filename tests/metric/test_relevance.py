"""Nearness of a wrong answer to the human ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lever_plus.metric.relevance import relevance

TEXTS = st.text(alphabet="ab c.,'1A", max_size=12)


@pytest.mark.parametrize(
    ("answer", "answers", "expected"),
    [
        ("cat", ["cat"], 1.0),
        ("The cat!", ["cat"], 1.0),
        ("two", ["2"], 1.0),
        ("xyz", ["cat"], 0.0),
        ("red car", ["red bus"], 8 / 14),
        ("car red", ["red car"], 1.0),
        ("cats", ["cat"], 6 / 7),
        ("red", ["red double decker bus"], 2 / 5),
        ("red red", ["red"], 2 / 3),
        ("cats", ["dog", "cat", "bird"], 6 / 7),
    ],
)
def test_relevance_is_the_better_of_token_f1_and_edit_similarity(
    answer: str, answers: list[str], expected: float
) -> None:
    assert relevance(answer, answers) == pytest.approx(expected)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_relevance_is_a_share_and_one_for_an_answer_a_human_gave(
    answer: str, answers: list[str]
) -> None:
    assert 0 <= relevance(answer, answers) <= 1
    assert relevance(answers[-1], answers) == 1


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
def test_further_human_answers_bring_an_answer_no_further_away(
    answer: str, answers: list[str]
) -> None:
    assert relevance(answer, [*answers, "other"]) >= relevance(answer, answers)
