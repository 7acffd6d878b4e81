"""What other commands than `results` print: headroom, power, the decisions about a question."""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import Methods, methods_in
from lever_plus.evaluation.plain_names import explained
from lever_plus.evaluation.scored import Row
from lever_plus.evaluation.trainings import Spread, questions_needed, smallest_difference
from lever_plus.report.decisions import Answered, Choice, Decision, given_answers, said_needs
from lever_plus.report.rl_data import headroom_rows
from lever_plus.report.tables import Summary, mean_differences, notes, points
from lever_plus.training.rl_data.headroom import Headroom

HEADS: Final = ("shot", "example", "question", "answer", "log-prob")
PAIR_HEADS: Final = ("methods", "n", "trainings", "detectable now", "n needed", "measured")
PLANNED_TRAININGS: Final = (2, 3, 5, 10)
PLANNED_QUESTIONS: Final = (300, 1_000, 3_000, 10_000)
SAID: Final = ("the VLM says", "score")


def print_headroom(found: Headroom) -> None:
    """Print how much better the best candidates of the RL data are: what there is to learn."""
    table = _table(f"RL data: {found.queries} groups of {found.candidates:.1f} candidates")
    table.add_column("at the last shot")
    table.add_column("", justify="right")
    for name, value in headroom_rows(found):
        table.add_row(name, value)
    console = Console()
    console.print(table)
    console.print(found.verdict)


def print_power(summary: Summary, delta: float) -> None:
    """Print how many questions and trainings would show a difference, with a power of 80 %.

    Differences are those of the mean over shots. The plan for two trained methods uses the typical
    spread of all pairs of them, because a few trainings hardly tell the spread of one pair.

    Args:
        summary: metrics/summary.json.
        delta: A true difference, in points.
    """
    rows, console = mean_differences(summary), Console()
    table = _table(f"Differences of the mean over shots, power 80 %; n needed for {delta:g} points")
    for head in PAIR_HEADS:
        justify: Literal["left", "right"] = "left" if head == PAIR_HEADS[0] else "right"
        table.add_column(head, justify=justify, no_wrap=head in (PAIR_HEADS[0], PAIR_HEADS[-1]))
    for row in rows:
        spread = _in_points(row)
        needed = questions_needed(spread, delta, row["trainings"])
        table.add_row(
            f"{row['method']} - {row['versus']}",
            str(row["n"]),
            str(row["trainings"] or ""),
            f"{smallest_difference(spread, row['trainings'], row['n']):.1f}",
            _count(needed),
            points(row),
        )
    console.print(table)
    for line in notes(rows):
        console.print(line)
    known = methods_in(summary)
    trained = [
        _in_points(row)
        for row in rows
        if row["trainings"] and all(known[row[m]].kind == "trained" for m in ("method", "versus"))
    ]
    if not trained:
        console.print("How much trainings differ is unknown: no method was trained more than once.")
        return
    typical = Spread(*np.sqrt(np.mean(np.square(trained), axis=0)))
    console.print(_plan(typical, delta))
    console.print(
        f"Typical standard deviations, points: {typical.trainings:.1f} between trainings, "
        f"{typical.questions:.1f} between questions, {typical.noise:.1f} of one training on one "
        "question."
    )


def _plan(spread: Spread, delta: float) -> Table:
    """Return the differences that numbers of trainings and questions show, and what one needs."""
    table = _table("Two trained methods: smallest difference that is detected, in points")
    for head in ("trainings", *(f"{n:,} questions" for n in PLANNED_QUESTIONS)):
        table.add_column(head, justify="right")
    table.add_column(f"questions for {delta:g}", justify="right")
    for runs in PLANNED_TRAININGS:
        shown = (f"{smallest_difference(spread, runs, n):.1f}" for n in PLANNED_QUESTIONS)
        table.add_row(str(runs), *shown, _count(questions_needed(spread, delta, runs)))
    return table


def _in_points(row: Row) -> Spread:
    return Spread(**{name: 100 * value for name, value in row["spread"].items()})


def _count(needed: int | None) -> str:
    return "more trainings" if needed is None else f"{needed:,}"


def print_decision(
    decision: Decision,
    examples: Mapping[int, Example],
    methods: Methods,
    console: Console | None = None,
) -> None:
    """Print what every method chose for one question, and what the VLM answered.

    Args:
        decision: The question and the choices.
        examples: All examples by id.
        methods: What the methods are.
        console: Where to; the terminal if none.
    """
    out = console or Console()
    answers = ", ".join(f"{answer} ({count})" for answer, count in given_answers(decision.example))
    # Text, not str: nothing in a question is markup of the terminal.
    out.print(Text(f"question {decision.example.question_id}: {decision.example.question}"))
    out.print(Text(f"human answers: {answers}\nimage: {decision.example.image}"))
    out.print(Text("\n".join([*filter(None, [said_needs(decision)]), ""])))
    known = decision.needs is not None
    for choice in decision.choices:
        seed = "" if choice.seed is None else f", seed {choice.seed}"
        table = _table(explained(methods[choice.method]) + seed)
        for head in (*HEADS, *(["kind"] if known else []), *SAID):
            right = head in ("shot", "example", "log-prob", "score")
            table.add_column(head, justify="right" if right else "left", overflow="fold")
        for answered in choice.answers:
            _add_shot(table, choice, answered, examples, known)
        out.print(table)


def _add_shot(
    table: Table,
    choice: Choice,
    answered: Answered,
    examples: Mapping[int, Example],
    known: bool,
) -> None:
    """Add a line for each demonstration that is new at a shot, and the answer to the last one.

    All are new where every shot has another pointer. Where none is new, because the selector has
    stopped, there is one line with the answer alone. Kinds of picks have a column if `known`.
    """
    said = (
        Text(f"{answered.answer} {'✓' if answered.right else '✗'}"),
        f"{answered.score:.2f}",
    )
    first = max(0, answered.shot - 1) if choice.nested else 0
    if first >= len(answered.pointer):
        table.add_row(str(answered.shot), *[""] * (len(HEADS) - 1 + known), *said)
        return
    for place in range(first, len(answered.pointer)):
        shown = examples[answered.pointer[place]]
        ends = place == len(answered.pointer) - 1
        log_prob = f"{choice.log_probs[place]:.3f}" if place < len(choice.log_probs) else ""
        table.add_row(
            str(answered.shot) if ends else "",
            str(shown.question_id),
            Text(shown.question),
            Text(shown.answer),
            log_prob,
            *answered.kinds[place : place + 1],
            *(said if ends else ("", "")),
        )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
