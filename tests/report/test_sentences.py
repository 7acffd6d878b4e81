"""The results in sentences: whose numbers they are, and what they mean."""

import json

import pandas as pd
import pytest

from lever_plus.evaluation.evaluate import Row
from lever_plus.evaluation.methods import methods_of
from lever_plus.evaluation.plain_names import explained
from lever_plus.evaluation.summary import summarise
from lever_plus.report.findings import way_to_oracle
from lever_plus.report.sentences import sentences
from lever_plus.report.tables import Summary
from tiny_world import REGISTRY, TARGETS

EVERYTHING = {
    **{"zero-shot": 0.2, "instructed": 0.25, "sttr": 0.4, "siir": 0.3, "fixed": 0.45},
    **{"sft": 0.5, "rce": 0.6, "grpo": 0.7, "grpo-stop": 0.65, "oracle": 0.8},
}


def table(accuracies: dict[str, float], questions: int = 200) -> pd.DataFrame:
    """A method is right on the first questions, so that differences are certain."""
    rows = [
        Row(method, 1, q, q, shot, [], [], "x", 1, float(q < accuracy * questions), False)
        for method, accuracy in accuracies.items()
        for q in range(questions)
        for shot in ((0,) if method in ("zero-shot", "instructed") else (1, 2))
    ]
    return pd.DataFrame(rows)


def summary_of(scores: pd.DataFrame) -> Summary:
    loaded: Summary = json.loads(json.dumps(summarise(scores, REGISTRY, 200)))
    return loaded


def told(accuracies: dict[str, float]) -> list[str]:
    scores = table(accuracies)
    way = way_to_oracle(scores, REGISTRY, 200)
    said = sentences(summary_of(scores), scores, 200, way)
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in said]


def accuracy_of(summary: Summary, method: str) -> str:
    row = next(r for r in [*summary["means"], *summary["rows"]] if r["method"] == method)
    low, high = row["ci95"]
    return f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def test_the_first_sentences_answer_the_question_with_the_best_method() -> None:
    said = told(EVERYTHING)
    number = accuracy_of(summary_of(table(EVERYTHING)), "grpo")
    assert number.startswith("70.0 % [")
    assert said[0].startswith("Yes: ")
    assert said[1] == (
        f"The best learned selector, trial and error (grpo), reaches an accuracy of {number} on "
        "200 test questions, averaged over 1 to 2 demonstrations, from one training."
    )


@pytest.mark.parametrize(
    ("other", "role", "gain"),
    [
        ("zero-shot", "", 50),
        ("instructed", "", 45),
        ("sttr", "the best selector by similarity, ", 30),
        ("fixed", "the best method that is not learned, ", 25),
        ("sft", "", 20),
        ("rce", "", 10),
    ],
)
def test_a_comparison_has_the_numbers_of_its_two_methods(other: str, role: str, gain: int) -> None:
    number = accuracy_of(summary_of(table(EVERYTHING)), other)
    assert number.startswith(f"{100 * EVERYTHING[other]:.1f} %")
    start = (
        f"Compared with {role}{explained(REGISTRY[other])}, which reaches {number}, it gains "
        f"{gain}.0 points ["
    )
    found = [sentence for sentence in told(EVERYTHING) if sentence.startswith(start)]
    assert len(found) == 1
    low, high = (float(v) for v in found[0].removeprefix(start).partition("]")[0].split(", "))
    assert 0 < low <= gain <= high
    assert "chance" not in found[0]


def test_what_stopping_saves_and_what_the_oracle_reaches_is_said() -> None:
    scores = table(EVERYTHING)
    summary = summary_of(scores)
    shown = {"grpo": 1.5, "grpo-stop": 0.75}
    for row in summary["means"]:
        row["demonstrations"] = shown.get(row["method"])
        row["vlm_requests"] = {"grpo": 12345.0, "rce": 99.0}.get(row["method"])
    way = way_to_oracle(scores, REGISTRY, 200)
    text = " ".join(sentences(summary, scores, 200, way)).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "Trial and error that learns when to stop (grpo-stop) shows 0.75 demonstrations on average "
        "where trial and error (grpo) shows 1.50; it loses 5.0 points ["
    ) in text
    assert (
        f"A search that knows the true answers (oracle) reaches {accuracy_of(summary, 'oracle')}"
        in text
    )
    assert "With 2 demonstrations, the best learned selector closes 75 % [" in text
    assert "of the distance from the best selector by similarity, nearest by question text" in text
    assert "Training it asked the model 12,345 times" in text
    assert "picked after all results were known" in text


def test_a_loss_is_a_loss_and_its_interval_is_turned_with_it() -> None:
    said = told({"sttr": 0.4, "fixed": 0.6, "sft": 0.5})
    assert said[0].startswith("In part: the best learned selector beats 1 of the 2 methods below")
    lost = next(sentence for sentence in said if "(fixed)" in sentence)
    assert "it loses 10.0 points [" in lost
    low, high = (float(v) for v in lost.partition("points [")[2].partition("]")[0].split(", "))
    assert 0 < low < 10 < high
    assert "; it was trained once" in lost


def test_what_may_be_chance_is_said() -> None:
    said = told({"zero-shot": 0.5, "sft": 0.5, "rce": 0.505, "grpo": 0.5})
    assert said[0].startswith("No: ")
    assert "(rce), reaches" in said[1]
    close = next(sentence for sentence in said if sentence.startswith("Compared with imitation"))
    assert "it gains 0.5 points [" in close
    assert ", which may be chance; it was trained once" in close
    assert any(
        sentence.startswith(
            "Compared with learning from scored lists (rce), trial and error (grpo) loses "
            "0.5 points"
        )
        for sentence in said
    )


def test_a_users_selector_is_compared_and_is_no_baseline() -> None:
    scores = table({"sttr": 0.4, "mine": 0.6, "sft": 0.5})
    methods = methods_of({}, TARGETS, selectors=["mine"])
    summary = json.loads(json.dumps(summarise(scores, methods, 200)))
    text = " ".join(sentences(summary, scores, 200))
    assert (
        "the best selector of your own, a selector of your own (mine), which reaches 60.0" in text
    )
    assert "the best method that is not learned" not in text


def test_without_a_trained_method_there_is_one_sentence() -> None:
    assert told({"zero-shot": 0.2, "sttr": 0.4}) == ["No trained method was evaluated."]
