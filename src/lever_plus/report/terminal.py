"""What commands print beside the results: headroom, power, and the decisions about one question."""

from collections.abc import Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lever_plus.data.examples import Example
from lever_plus.evaluation.statistics import questions_needed, smallest_difference
from lever_plus.report.decisions import Answered, Choice, Decision, given_answers, said_needs
from lever_plus.report.rl_data import headroom_rows
from lever_plus.report.tables import Summary, points
from lever_plus.training.rl_data.headroom import Headroom

HEADS: Final = ("shot", "example", "question", "answer", "log-prob")
SAID: Final = ("the VLM says", "score")


def print_headroom(found: Headroom) -> None:
    """Print what the RL data hold to be learned."""
    table = _table(f"RL data: {found.queries} groups of {found.candidates:.1f} candidates")
    table.add_column("at the last shot")
    table.add_column("", justify="right")
    for name, value in headroom_rows(found):
        table.add_row(name, value)
    console = Console()
    console.print(table)
    console.print(found.verdict)


def print_power(summary: Summary, delta: float) -> None:
    """Print how many questions differences of the mean over shots need, with a power of 80 %."""
    table = _table(f"A true difference of {delta} points in the mean over shots, power 80 %")
    heads = ["methods", "n", "s.d.", f"n for {delta}", "shown by n", "measured"]
    for head in heads:
        table.add_column(head, justify="left" if head == "methods" else "right")
    for row in summary["differences"]:
        if row["shots"] == "mean":
            table.add_row(
                f"{row['method']} - {row['versus']}",
                str(row["n"]),
                f"{100 * row['deviation']:.1f}",
                f"{questions_needed(100 * row['deviation'], delta):,}",
                f"{smallest_difference(100 * row['deviation'], row['n']):.1f}",
                points(row),
            )
    Console().print(table)


def print_decision(
    decision: Decision, examples: Mapping[int, Example], console: Console | None = None
) -> None:
    """Print what every method chose for one question, and what the VLM answered.

    Args:
        decision: The question and the choices.
        examples: All examples by id.
        console: Where to; the terminal if none.
    """
    out = console or Console()
    answers = ", ".join(f"{answer} ({count})" for answer, count in given_answers(decision.example))
    # Text, not str: what a question says is no markup.
    out.print(Text(f"question {decision.example.question_id}: {decision.example.question}"))
    out.print(Text(f"human answers: {answers}\nimage: {decision.example.image}"))
    out.print(Text("\n".join([*filter(None, [said_needs(decision)]), ""])))
    known = decision.needs is not None
    for choice in decision.choices:
        seed = "" if choice.seed is None else f", seed {choice.seed}"
        table = _table(choice.method + seed)
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
    """Add the demonstrations that a shot adds, all of them where it has a pointer of its own.

    Their kinds are in a column of their own where they are `known`.
    """
    said = (
        Text(f"{answered.answer} {'✓' if answered.right else '✗'}"),
        f"{answered.score:.2f}",
    )
    if not answered.pointer:
        table.add_row(str(answered.shot), *[""] * (len(HEADS) - 1 + known), *said)
        return
    first = answered.shot - 1 if choice.nested else 0
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
