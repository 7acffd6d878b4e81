"""Agreement of the VQA metric with the official script, and its general properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lever_plus.metric import normalize_answer, vqa_accuracy
from lever_plus.metric.check import CONVENTIONS, FIELDS, read_vectors
from lever_plus.metric.contractions import CONTRACTIONS
from lever_plus.metric.vqa import Convention

VECTORS = read_vectors()
SCORED = [
    pytest.param(case, convention, id=f"{convention}-{case['name']}")
    for case in VECTORS["accuracy"]
    for convention in FIELDS
]
MIXED = ["Two", "2", "two.", "a cat", "cat", "cat ", "yes", "Yes!", "no", "2"]

# Pieces that meet the rules of the metric far more often than random characters do.
PIECES = st.sampled_from(
    [
        *"aA1٣ .,-/'!?;:\n\t",
        "the",
        "None",
        "ten",
        "dont",
        "somebody'd",
        "y'allll",
        "\u0130",
        "\u03a3",
    ]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=30)


def texts_of(case: dict[str, Any]) -> list[str]:
    """Return the bare answers of an accuracy vector."""
    return [record["answer"] for record in case["answers"]]


@pytest.mark.parametrize("vector", VECTORS["normalise"], ids=lambda vector: repr(vector["in"]))
def test_normal_form_is_the_official_one(vector: dict[str, str]) -> None:
    """Every recorded string has the normal form that the unmodified script gave it."""
    assert normalize_answer(vector["in"]) == vector["out"]


@pytest.mark.parametrize(("case", "convention"), SCORED)
def test_accuracy_is_the_official_one(case: dict[str, Any], convention: Convention) -> None:
    """Every recorded question has the score that the unmodified script printed."""
    score = vqa_accuracy(case["pred"], texts_of(case), convention)
    assert round(100 * score, 2) == case[FIELDS[convention]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2-3/4", "1234"),
        ("no.1", "no.1"),
        ("2:30pm", "2:30pm"),
        ("p.m.5", "pm.5"),
        ("somebody'd", "somebodyd"),
        ("y'allll", "y'all'll"),
        ("Id've", "id've"),
        ("\u039f\u03a3", "\u03bf\u03c3"),
        ("cat\n,b,c", "cat bc"),
        ("cat\t,b,c", "cat bc"),
        ("b/-c-d", "b c d"),
    ],
)
def test_normal_form_beyond_the_vectors(text: str, expected: str) -> None:
    """Rules that no recorded string reaches hold as well."""
    assert normalize_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Yes", ["yes"] * 10, 1.0),
        (" yes.\n", ["yes"] * 10, 1.0),
        ("two", ["two"] * 10, 1.0),
        ("two", ["2"] * 10, 1.0),
        ("2", ["two"] * 10, 1.0),
        ("cat", ["a cat"] * 10, 1.0),
        ("2", ["two"] * 9 + ["2"], 1.0),
        ("", ["a"] * 5 + ["the"] * 5, 1.0),
        ("yesno", ["yes,no"] * 5 + ["yes no"] * 5, 0.0),
        ("cat", ["cat"] * 3 + ["dog"] * 7, 0.9),
        ("cat", ["cat"] * 2 + ["dog"] * 8, 0.6),
        ("cat", ["cat"], 0.0),
    ],
)
def test_community_always_normalises(prediction: str, answers: list[str], expected: float) -> None:
    """Unanimous answers are normalised too, unlike in the official script."""
    assert vqa_accuracy(prediction, answers) == expected
    assert vqa_accuracy(prediction, answers, "community") == expected


def test_unanimity_is_judged_after_cleaning_in_official_only() -> None:
    """A stray space keeps the answers unanimous in one version and not in the other."""
    answers = ["two"] * 9 + ["two\n"]
    assert vqa_accuracy("2", answers, "official") == 0.0
    assert vqa_accuracy("two", answers, "official") == 1.0
    assert vqa_accuracy("yes", ["yes."] * 9 + ["yes. "], "pre2021") == 1.0


def test_contraction_table_has_its_120_entries() -> None:
    """The derived table has the size of the original and its peculiarities."""
    assert len(CONTRACTIONS) == 120
    assert CONTRACTIONS["couldn'tve"] == CONTRACTIONS["couldnt've"] == "couldn't've"
    assert "lets" not in CONTRACTIONS


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_scoring_twice_gives_the_same_and_leaves_the_answers_alone(convention: Convention) -> None:
    """The functions are pure, which the original is not."""
    answers = ["Yes"] * 5 + ["yes "] * 5
    first = vqa_accuracy("Yes", answers, convention)
    assert vqa_accuracy("Yes", answers, convention) == first
    assert answers == ["Yes"] * 5 + ["yes "] * 5


@given(answers=st.permutations(MIXED), prediction=st.sampled_from(MIXED))
def test_order_of_the_answers_does_not_matter(answers: list[str], prediction: str) -> None:
    """Any order of the annotators gives the very same float."""
    for convention in CONVENTIONS:
        expected = vqa_accuracy(prediction, MIXED, convention)
        assert vqa_accuracy(prediction, tuple(answers), convention) == expected


@given(
    prediction=TEXTS,
    answers=st.lists(TEXTS, min_size=1, max_size=12),
    convention=st.sampled_from(CONVENTIONS),
)
def test_accuracy_is_a_fraction(
    prediction: str, answers: list[str], convention: Convention
) -> None:
    """No text, however odd, leaves the range of the score."""
    answers.append(prediction)
    assert 0.0 <= vqa_accuracy(prediction, answers, convention) <= 1.0


@given(matches=st.integers(0, 40), others=st.integers(1, 40))
def test_accuracy_is_the_leave_one_out_mean(matches: int, others: int) -> None:
    """The closed form equals the definition, written out."""
    answers = ["cat"] * matches + ["dog"] * others
    left_out = [answers[:i] + answers[i + 1 :] for i in range(len(answers))]
    mean = sum(min(1.0, rest.count("cat") / 3) for rest in left_out) / len(answers)
    assert vqa_accuracy("cat", answers) == pytest.approx(mean)


@given(TEXTS.filter(lambda text: text.count(".") < 32))
def test_normalising_again_changes_nothing(text: str) -> None:
    """A normal form is its own normal form below the period limit."""
    once = normalize_answer(text)
    assert normalize_answer(once) == once


def test_more_than_32_periods_need_a_second_pass() -> None:
    """The period limit of the original is kept."""
    assert normalize_answer("." * 40) == "." * 8
    assert normalize_answer("." * 8) == ""


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_answers_is_an_error(convention: Convention) -> None:
    """A question without answers has no accuracy."""
    with pytest.raises(ValueError, match="at least one human answer"):
        vqa_accuracy("cat", [], convention)


def test_one_string_is_not_a_list_of_answers() -> None:
    """A string would otherwise be scored letter by letter."""
    with pytest.raises(TypeError, match="not the one string 'cat'"):
        vqa_accuracy("cat", "cat")


def test_unknown_convention_names_the_choices() -> None:
    """The message says what can be asked for."""
    with pytest.raises(ValueError, match=r"'vqa2'.*official, pre2021, community"):
        vqa_accuracy("cat", ["cat"], "vqa2")  # type: ignore[arg-type]
