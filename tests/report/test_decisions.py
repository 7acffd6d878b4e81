"""Decisions: the flags, the sample, and `show`, which prints what the page has."""

import io
from pathlib import Path

import pytest
from report_world import ORACLE, QUESTIONS, Made
from rich.console import Console

from lever_plus.errors import UserError
from lever_plus.evaluation.plain_names import explained
from lever_plus.pipeline import report
from lever_plus.pipeline.ideal_reader import open_reader
from lever_plus.pipeline.paths import Paths
from lever_plus.report.decisions import Decision, gather, given_answers, sample
from lever_plus.report.terminal import print_decision
from tiny_world import REGISTRY


@pytest.fixture
def decisions(project: Made) -> list[Decision]:
    return gather(project.scores, project.examples, REGISTRY)


def flagged(decisions: list[Decision], flag: str) -> set[int]:
    return {d.example.question_id for d in decisions if flag in d.flags}


def test_a_filter_holds_exactly_its_questions(decisions: list[Decision]) -> None:
    assert flagged(decisions, "gained") == {q for q in QUESTIONS if q % 4 == 1}
    assert flagged(decisions, "lost") == {q for q in QUESTIONS if q % 4 == 2}
    assert flagged(decisions, "missed") == {q for q in ORACLE if q % 4 == 2}


def test_a_choice_has_its_pointers_answers_and_log_probs(decisions: list[Decision]) -> None:
    decision = decisions[1]
    assert [c.method for c in decision.choices] == [
        "zero-shot",
        "sttr",
        "random",
        "sft",
        "rce",
        "agro",
        "grpo",
        "grpo-stop",
        "oracle",
    ]
    grpo, oracle, random = (decision.of(m) for m in ("grpo", "oracle", "random"))
    assert grpo
    assert oracle
    assert random
    assert (grpo.seed, random.seed, oracle.seed) == (1, 0, None)
    assert grpo.log_probs == (-0.5, -1.0, -1.5, -2.0)
    assert random.log_probs == ()
    assert [len(a.pointer) for a in grpo.answers] == [1, 2, 3, 4]
    assert grpo.nested
    assert not oracle.nested
    assert grpo.right
    assert decision.of("vote") is None
    assert decisions[-1].of("oracle") is None


def test_the_sample_has_some_of_every_filter_and_is_the_same_again(
    decisions: list[Decision],
) -> None:
    chosen = sample(decisions, 60)
    ids = [d.example.question_id for d in chosen]
    assert ids == sorted(set(ids))
    assert len(ids) == 60
    for flag in ("gained", "lost", "missed"):
        assert len(flagged(chosen, flag)) >= 10
    assert sample(decisions, 60) == chosen
    assert sample(decisions, 1000) == decisions
    assert len(sample(decisions, 3)) == 3


def test_the_human_answers_are_counted(project: Made) -> None:
    example = project.examples[QUESTIONS[0]]
    assert given_answers(example) == [("right", 7), ("<b>also</b>", 3)]


def printed(decision: Decision, project: Made) -> str:
    stream = io.StringIO()
    print_decision(decision, project.examples, REGISTRY, Console(file=stream, width=200))
    return stream.getvalue()


def test_show_prints_what_the_page_has(decisions: list[Decision], project: Made) -> None:
    decision = decisions[0]
    text = printed(decision, project)
    assert "must be told" not in text
    assert "[bold]?" in text  # no markup of the terminal either
    for choice in decision.choices:
        assert explained(REGISTRY[choice.method]) in text
        for answered in choice.answers:
            assert f"{answered.answer} {'✓' if answered.right else '✗'}" in text
            assert all(f" {i} " in text for i in answered.pointer)
    assert "-1.500" in text
    assert "0.90" in text


def test_what_a_question_needs_and_the_kinds_of_picks_are_told_where_they_are_known(
    project: Made,
) -> None:
    reader = open_reader(project.paths, project.examples)
    told = gather(project.scores, project.examples, REGISTRY, reader)
    assert {d.needs for d in told} == {(), ("language",)}
    for decision in told[:10]:
        query = decision.example.question_id
        for answered in (a for choice in decision.choices for a in choice.answers):
            assert answered.kinds == reader.kinds(query, answered.pointer)
    text = printed(told[1], project)
    assert "must be told: language" in text
    assert "harmful" in text
    assert "must be told: nothing" in printed(told[0], project)


def test_show_finds_a_question(project: Made, capsys: pytest.CaptureFixture[str]) -> None:
    report.show(project.paths, QUESTIONS[5])
    said = capsys.readouterr().out
    assert f"question {QUESTIONS[5]}" in said
    assert project.examples[QUESTIONS[5]].image in said
    assert "must be told: nothing" in said


def test_an_unknown_question_says_which_there_are(project: Made) -> None:
    with pytest.raises(UserError, match=r"question 7 .*100 test .* \(the first are 1000, 1001"):
        report.show(project.paths, 7)


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro evaluate"):
        report.show(Paths(tmp_path), 7)
