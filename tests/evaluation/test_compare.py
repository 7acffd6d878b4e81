"""The public `evaluate`: known accuracies, their intervals, differences paired with the first."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lever_plus import Example, Query, evaluate
from lever_plus.errors import PointerError, UserError
from lever_plus.evaluation.compare import Evaluation
from lever_plus.evaluation.statistics import bootstrap, paired
from lever_plus.selectors.baselines import RandomSelector
from lever_plus.vlm.request import Request
from tiny_checkpoint import IDENTITY

RESAMPLES = 400
IMAGES = 4
QUESTIONS = 12


class FormulaVlm:
    """Answers only even questions rightly, but all questions if "good" is shown first."""

    identity = IDENTITY

    def answers(self, requests: Sequence[Request], *, description: str) -> list[str]:
        assert description
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> str:
        number = int(request.query.question.split()[1])
        shown = [example.answer for example in request.demonstrations]
        knows = shown[0] == "good" if shown else number % 2 == 0
        return f"answer {number}" if knows else "nothing"

    def log_likelihoods(self, requests: Sequence[Request], *, description: str) -> list[float]:
        raise AssertionError((requests, description))

    def prompt_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [10 + 15 * len(request.demonstrations) for request in requests]


class First:
    """For questions whose number a test allows, shows the examples with a given answer first."""

    def __init__(self, answer: str, numbers: range = range(QUESTIONS)) -> None:
        """Keep what is shown first."""
        self.answer, self.numbers = answer, numbers

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        wanted = self.answer if int(query.question.split()[1]) in self.numbers else "bad"
        return sorted(pool, key=lambda example: example.answer != wanted)[:shots]


@pytest.fixture
def questions(tmp_path: Path) -> list[Example]:
    """Twelve questions about four pictures; each picture is there in three files. No ids."""
    found = []
    for number in range(QUESTIONS):
        image = tmp_path / f"question{number}.png"
        image.write_bytes(f"picture {number % IMAGES}".encode())
        # Three humans that agree with an answer make its VQA accuracy 0.9.
        humans = 3 if number == 0 else 10
        answers = (*[f"answer {number}"] * humans, *["other"] * (10 - humans))
        found.append(Example(str(image), f"question {number}", f"answer {number}", answers))
    return found


@pytest.fixture
def pool(tmp_path: Path) -> list[Example]:
    """Two good and two bad examples."""
    for number in range(4):
        (tmp_path / f"pool{number}.png").write_bytes(f"pool {number}".encode())
    return [
        Example(str(tmp_path / f"pool{number}.png"), f"shown {number}", answer)
        for number, answer in enumerate(["bad", "good", "bad", "good"])
    ]


HALF = np.array([0.9, *(float(number % 2 == 0) for number in range(1, QUESTIONS))])
"""Accuracy of every question if the VLM knows only the even ones."""
ALL = np.array([0.9, *[1.0] * (QUESTIONS - 1)])
CLUSTERS = np.arange(QUESTIONS) % IMAGES
SOME = np.where(np.arange(QUESTIONS) < 5, ALL, 0.0)


def run(questions: list[Example], pools: Sequence[object], **options: object) -> Evaluation:
    selectors = {"good": First("good"), "some": First("good", range(5)), "bad": First("bad")}
    settings = {"shots": 2, "resamples": RESAMPLES, **options}
    return evaluate(selectors, questions, pools, FormulaVlm(), **settings)  # type: ignore[arg-type]


def test_accuracies_are_those_of_the_formula_with_n(
    questions: list[Example], pool: list[Example]
) -> None:
    found = {(r["method"], r["shots"]): r for r in run(questions, pool).rows}
    assert {key: row["accuracy"] for key, row in found.items()} == {
        ("zero-shot", 0): pytest.approx(HALF.mean(), abs=1e-6),
        ("good", 1): pytest.approx(ALL.mean(), abs=1e-6),
        ("good", 2): pytest.approx(ALL.mean(), abs=1e-6),
        ("some", 1): pytest.approx(SOME.mean(), abs=1e-6),
        ("some", 2): pytest.approx(SOME.mean(), abs=1e-6),
        ("bad", 1): 0.0,
        ("bad", 2): 0.0,
    }
    assert {row["n"] for row in found.values()} == {QUESTIONS}


def test_intervals_resample_pictures_whole_whatever_file_holds_them(
    questions: list[Example], pool: list[Example]
) -> None:
    found = {(r["method"], r["shots"]): r for r in run(questions, pool).rows}
    for key, values in ((("zero-shot", 0), HALF), (("some", 2), SOME)):
        clustered = bootstrap(values, RESAMPLES, CLUSTERS)
        assert found[key]["ci95"] == pytest.approx([clustered.low, clustered.high], abs=1e-6)
        alone = bootstrap(values, RESAMPLES)
        assert found[key]["ci95"] != pytest.approx([alone.low, alone.high], abs=1e-3)


def test_differences_are_paired_with_the_first_selector(
    questions: list[Example], pool: list[Example]
) -> None:
    found = {(r["method"], r["shots"]): r for r in run(questions, pool).differences}
    assert set(found) == {(m, s) for m in ("some", "bad") for s in (1, 2, "mean")}
    assert {row["versus"] for row in found.values()} == {"good"}
    expected = paired(SOME, ALL, RESAMPLES, CLUSTERS)
    row = found["some", 1]
    assert row["difference"] == pytest.approx(expected.mean, abs=1e-6)
    assert row["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert (row["n"], row["wins"], row["losses"], row["ties"]) == (QUESTIONS, 0, 7, 5)


def test_questions_without_ids_stay_apart_and_ids_of_the_caller_do_not_matter(
    questions: list[Example], pool: list[Example]
) -> None:
    plain = run(questions, pool)
    assert sorted(set(plain.scores["query_id"])) == list(range(1, QUESTIONS + 1))
    assert len(set(plain.scores["image_id"])) == IMAGES
    same = [replace(question, question_id=7, image_id=7) for question in questions]
    assert run(same, pool).scores.equals(plain.scores)


def test_the_table_that_is_printed_has_every_row(
    questions: list[Example], pool: list[Example]
) -> None:
    lines = str(run(questions, pool)).splitlines()
    assert lines[0].split() == ["method", "shots", "accuracy", "[95", "%]", "n"]
    assert len(lines) == 1 + 7
    assert lines[2].split()[:3] == ["good", "1", "99.2"]
    assert lines[2].split()[-1] == "12"


def test_a_pool_for_each_question_is_the_one_that_it_gets(
    questions: list[Example], pool: list[Example]
) -> None:
    """Odd questions get only bad examples."""
    bad = [example for example in pool if example.answer == "bad"]
    each = [bad if number % 2 else pool for number in range(QUESTIONS)]
    found = {(r["method"], r["shots"]): r["accuracy"] for r in run(questions, each).rows}
    assert found["good", 1] == pytest.approx(HALF.mean(), abs=1e-6)
    with pytest.raises(UserError, match="12 questions, but 11 pools and 0 examples: give one list"):
        run(questions, each[1:])
    with pytest.raises(UserError, match="12 questions, but 0 pools and 0 examples"):
        run(questions, [])
    with pytest.raises(UserError, match="12 questions, but 1 pools and 4 examples"):
        run(questions, [*pool, pool])


def test_what_shows_the_questions_own_image_is_in_no_pool(
    questions: list[Example], pool: list[Example], tmp_path: Path
) -> None:
    """What this selector would show first is one of the questions, in another file."""
    (tmp_path / "copy.png").write_bytes(Path(questions[3].image).read_bytes())
    copy = replace(questions[3], image=str(tmp_path / "copy.png"), answer="good", question_id=99)
    scores = run(questions, [copy, *pool]).scores
    first = scores[(scores["method"] == "good") & (scores["shot"] == 1)]
    chosen = first.set_index("query_id")["pointer"]
    shown = {query - 1 for query, pointer in chosen.items() if pointer == [99]}
    assert shown == {number for number in range(QUESTIONS) if number % IMAGES != 3}


def test_a_question_without_ten_humans_is_refused_or_marked(
    questions: list[Example], pool: list[Example]
) -> None:
    questions[2] = replace(questions[2], answers=())
    with pytest.raises(UserError, match=r"'question 2' .* has 0 human answers; .* needs 10"):
        run(questions, pool)
    found = run(questions, pool, allow_fallback=True)
    marked = found.scores[found.scores["fallback"]]
    assert set(marked["query_id"]) == {3}
    good = marked[marked["method"] == "good"]
    assert list(good["vqa_acc_score"]) == [1.0, 1.0]


class Outsider:
    """Returns an example of its own, or one twice."""

    def __init__(self, own: Example | None) -> None:
        """Keep the example; with None it returns the pool's first one, as often as it is asked."""
        self.own = own

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        assert query.image_sha256
        return [self.own or pool[0]] * shots


def test_a_selector_that_leaves_its_pool_or_repeats_itself_is_refused(
    questions: list[Example], pool: list[Example]
) -> None:
    outside = replace(pool[0], question="another")
    with pytest.raises(PointerError, match="chose an example for 'question 0' .* not in its pool"):
        evaluate({"mine": Outsider(outside)}, questions, pool, FormulaVlm(), shots=1)
    with pytest.raises(PointerError, match="chose 1 distinct examples for 'question 0' .*, not 2"):
        evaluate({"mine": Outsider(None)}, questions, pool, FormulaVlm(), shots=2)


def test_there_must_be_something_to_compare(questions: list[Example], pool: list[Example]) -> None:
    one = {"mine": RandomSelector(0)}
    for selectors, asked in (({}, questions), (one, [])):
        with pytest.raises(UserError, match="at least one selector and one question"):
            evaluate(selectors, asked, pool, FormulaVlm())
    with pytest.raises(UserError, match="zero-shot is always evaluated: give your selector"):
        evaluate({"zero-shot": RandomSelector(0)}, questions, pool, FormulaVlm())
