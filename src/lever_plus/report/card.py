"""One decision as a card: a question, what a learned selector and similarity show, the answers."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

import pandas as pd

from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import ZERO_SHOT, Methods
from lever_plus.evaluation.plain_names import explained
from lever_plus.report.decisions import Answered, Choice, Decision, Reader, gather, given_answers
from lever_plus.report.page import note
from lever_plus.report.thumbnails import thumbnails

SHOT: Final = 2
STEPS: Final = ((224, 80), (96, 75))
BUDGET: Final = 200_000
"""Characters of all images of the card together."""
KINDS: Final = {
    "complement": "explains a word of the question",
    "duplicate": "explains what is explained already",
    "harmful": "misleads: a word in it means something else",
    "idle": "explains nothing that is asked",
}
"""{kind of a pick: what it does for the question}."""


class Story(NamedTuple):
    """A question that two selectors are compared on, and how usual it is.

    Attributes:
        question: Its id.
        shot: Demonstrations shown at most.
        only_learned: Questions that the learned selector gets right, and the other wrong.
        only_other: The reverse.
        asked: Questions that both were asked.
    """

    question: int
    shot: int
    only_learned: int
    only_other: int
    asked: int


def story(
    scores: pd.DataFrame, learned: str, other: str, reader: Reader | None = None
) -> Story | None:
    """Return a question to show: the learned selector gets it right, the other one wrong.

    Of those it is the first that needs most to be told, where somebody knows that. Where there is
    none, it is the first of all. Only the first training seed of a method counts.

    Args:
        scores: The table of `evaluate`.
        learned: A learned method.
        other: What it is compared with.
        reader: Knows what questions need.

    Returns:
        None if the two have no question in common.
    """
    part = scores[scores["method"].isin((learned, other))]
    shot = min(SHOT, int(part["shot"].max())) if len(part) else SHOT
    part = part[part["shot"] == shot]
    first = part.groupby("method")["seed"].transform("min")
    right = part[part["seed"] == first].pivot_table(
        index="query_id", columns="method", values="vqa_correct", sort=False
    )
    if learned not in right or other not in right:
        return None
    right = right.dropna() > 0
    won = right.index[right[learned] & ~right[other]].tolist()
    lost = int((right[other] & ~right[learned]).sum())
    needs = 0 if reader is None else max((len(reader.needs(q)) for q in won), default=0)
    telling = [q for q in won if reader is None or len(reader.needs(q)) == needs]
    asked = right.index.tolist()
    if not asked:
        return None
    return Story(int((telling or asked)[0]), shot, len(won), lost, len(asked))


def card(
    scores: pd.DataFrame,
    examples: Mapping[int, Example],
    methods: Methods,
    pair: tuple[str, str],
    reader: Reader | None = None,
) -> str:
    """Return the card as HTML; "" where the two methods have no question in common.

    Args:
        scores: The table of `evaluate`.
        examples: All examples by id.
        methods: What the methods are.
        pair: The learned method, and what it is compared with.
        reader: Knows what questions need, and what picks do for them.
    """
    told = story(scores, *pair, reader)
    if told is None:
        return ""
    part = scores[(scores["query_id"] == told.question) & (scores["shot"] <= told.shot)]
    decision = gather(part, examples, methods, reader, (ZERO_SHOT, *pair))[0]
    images = {examples[i].image_id: examples[i].image for i in decision.example_ids}
    uris = thumbnails(images, BUDGET, STEPS)
    sides = "".join(_side(decision.of(name), examples, uris, methods) for name in pair)
    return (
        '<article class="card">'
        + _question(decision, uris)
        + f'<div class="sides">{sides}</div>'
        + note(_usual(told))
        + "</article>"
    )


def _usual(told: Story) -> str:
    """Return how often it is like that: one question proves nothing."""
    return (
        f"This question is an example. With {told.shot} demonstrations, the learned selector (its "
        f"first training) is right and similarity wrong on {told.only_learned:,} of "
        f"{told.asked:,} test questions; the reverse holds for {told.only_other:,}."
    )


def _question(decision: Decision, uris: Mapping[int, str]) -> str:
    example = decision.example
    given = ", ".join(answer for answer, _ in given_answers(example)[:3])
    lines = [f"People answer: <strong>{escape(given)}</strong>"]
    if decision.needs:
        needs = " and the ".join(decision.needs)
        lines.append(f"Only demonstrations can tell the model the {escape(needs)}.")
    without = decision.of(ZERO_SHOT)
    if without:
        lines.append(f"Without demonstrations, the model answers: {_verdict(without.answers[-1])}")
    told = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<div class="query">{_image(example, uris)}<div>'
        f'<p class="asked">{escape(example.question)}</p>{told}</div></div>'
    )


def _side(
    choice: Choice | None,
    examples: Mapping[int, Example],
    uris: Mapping[int, str],
    methods: Methods,
) -> str:
    if choice is None:
        return ""
    last = choice.answers[-1]
    kinds: Sequence[str] = last.kinds or [""] * len(last.pointer)
    tiles = "".join(
        f'<li class="tile">{_image(examples[i], uris)}<p>{escape(examples[i].question)}<br>'
        f"<strong>{escape(examples[i].answer)}</strong></p>{_kind(kind)}</li>"
        for i, kind in zip(last.pointer, kinds, strict=True)
    )
    return (
        f'<section class="side"><h3>{escape(explained(methods[choice.method]))}</h3>'
        f'<ol class="tiles">{tiles}</ol>'
        f"<p>The model answers: {_verdict(last)}</p></section>"
    )


def _kind(kind: str) -> str:
    return f'<p class="label">{escape(KINDS.get(kind, kind))}</p>' if kind else ""


def _verdict(answered: Answered) -> str:
    said = escape(answered.answer) or "(nothing)"
    mark = "right" if answered.right else "wrong"
    sign = "✓" if answered.right else "✗"
    said = f"<strong>{said}</strong>"
    return f'<span class="{mark}">{said} <span class="mark">{sign} {mark}</span></span>'


def _image(example: Example, uris: Mapping[int, str]) -> str:
    alt = escape(f"image of example {example.question_id}: {example.question}")
    return f'<img src="{uris[example.image_id]}" alt="{alt}">'
