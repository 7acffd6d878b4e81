"""The page's parts as HTML: rounds, questions and demonstrations; all texts are escaped."""

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Final

from lever_plus.data.examples import Example
from lever_plus.data.images import open_image
from lever_plus.evaluation.methods import RANDOM, ZERO_SHOT
from lever_plus.evaluation.plain_names import PLAIN_NAMES
from lever_plus.features.similarities import STTR
from lever_plus.files.secrets import without_secrets
from lever_plus.hosts.demo.play import BY_HAND, LABELS, LEARNED, STOPPING, Playground, Round, Shown
from lever_plus.hosts.demo.why import Step

SIDE: Final = 160
"""Longest side of a picture on the page, in pixels."""
TITLES: Final = {ZERO_SHOT: PLAIN_NAMES[ZERO_SHOT], RANDOM: RANDOM, STTR: "similar"}
"""Plainer titles of some methods; the name that the tables use is shown next to them."""


class View:
    """Writes the page's parts for one playground."""

    def __init__(self, play: Playground) -> None:
        """Keep the playground, and a small version of each image, which is made only once."""
        self._play, self._pictures = play, dict[str, str]()

    def question(self, image: str | None, question: str) -> str:
        """Return the image of a question, and the question's meaning if that is known.

        Raises:
            UserError: The image can't be opened.
        """
        if not image:
            return _note("Pick a question, or upload an image and write one.")
        truth = None
        if question.strip():
            truth = self._play.truth(self._play.query(image, question))
        picture = self._picture(image, "the image asked about")
        return f'<div class="lp-asked">{picture}{_note(self._asks(truth))}</div>'

    def round(self, found: Round) -> str:
        """Return the results of all methods side by side, and why the policy picked so."""
        columns = "".join(self.column(shown) for shown in found.shown)
        return f'{self._head(found)}<div class="lp-methods">{columns}</div>{why(found)}'

    def column(self, shown: Shown) -> str:
        """Return one method's column: its title, the VLM's answer, and its demonstrations."""
        own = TITLES.get(shown.method, shown.method)
        name = "" if own == shown.method else f" <small>{escape(shown.method)}</small>"
        cards = "".join(
            f"<li>{self.card(example, note)}</li>"
            for example, note in zip(
                shown.examples, shown.notes or ("",) * len(shown.examples), strict=True
            )
        )
        listed = f'<ol class="lp-cards">{cards}</ol>' if cards else _note(_nothing(shown))
        return (
            f'<section class="lp-method"><h3>{escape(own)}{name}</h3>'
            f'<p class="lp-note">{escape(LABELS[shown.method])}</p>'
            f"{answer(shown)}{listed}</section>"
        )

    def card(self, example: Example, note: str = "") -> str:
        """Return a demonstration: image, question, answer, and what is known about it."""
        facts = [self._play.meaning(example), note]
        said = "".join(f'<span class="lp-note">{escape(fact)}</span>' for fact in facts if fact)
        return (
            f'<div class="lp-card">{self._picture(example.image, "")}<div>'
            f"<span>{escape(example.question)}</span>"
            f"<strong>{escape(example.answer)}</strong>{said}</div></div>"
        )

    def _head(self, found: Round) -> str:
        truth = found.truth
        line = "The true answer is not known, so no answer is marked right or wrong."
        if truth is not None and truth.answers:
            counts = Counter(truth.answers).most_common()
            said = ", ".join(f"{text} ({count})" for text, count in counts)
            line = f"People answered: {said}."
        elif truth is not None:
            line = f"The true answer: {truth.answer}."
        return (
            f'<div class="lp-head"><h2>{escape(found.query.question)}</h2>'
            f'<p class="lp-note">{escape(self._asks(truth))}{escape(line)}</p></div>'
        )

    def _asks(self, truth: Example | None) -> str:
        """Return a sentence that says what a question means; "" if that is not known."""
        meaning = self._play.meaning(truth)
        return f"It asks for the {meaning}. " if meaning else ""

    def _picture(self, image: str, alt: str) -> str:
        if image not in self._pictures:
            self._pictures[image] = _data_url(image)
        return f'<img src="{self._pictures[image]}" alt="{escape(alt)}">'


def answer(shown: Shown) -> str:
    """Return a VLM's answer, marked right or wrong if that is known."""
    text = escape(shown.answer) or "(nothing)"
    if shown.score is None:
        return f'<p class="lp-answer">{text}</p>'
    right = bool(shown.score.vqa_correct)
    mark, kind = ("✓ right", "lp-right") if right else ("✗ wrong", "lp-wrong")
    worth = f"{mark}, accuracy {shown.score.vqa_acc_score:.1f}"
    return f'<p class="lp-answer {kind}">{text}<small>{worth}</small></p>'


def why(found: Round) -> str:
    """Return the policy's probabilities at every step, and where it stopped."""
    learned, stopping = found.of(LEARNED), found.of(STOPPING)
    if learned is None:
        return ""
    stops = stopping.steps if stopping else ()
    count = len(stopping.examples) if stopping else None
    steps = "".join(
        f'<div class="lp-step">{_step(number, step)}'
        f"{_stop(number, count, stops[number].stop, stopping) if number < len(stops) else ''}</div>"
        for number, step in enumerate(learned.steps)
    )
    return (
        '<details class="lp-why" open><summary>Why the policy picked these, step by step</summary>'
        f'<div class="lp-steps">{steps}</div></details>'
    )


def problem(error: Exception) -> str:
    """Return an error's message as HTML, without secrets."""
    return f'<p class="lp-problem" role="alert">{escape(without_secrets(str(error)))}</p>'


def option(example: Example) -> str:
    """Return an example as one line of a list to choose from."""
    return f"{example.question} → {example.answer} [{example.question_id}]"


def options(examples: Sequence[Example]) -> list[tuple[str, int]]:
    """Return the entries of a list to choose from, (line, question_id), sorted by line."""
    return sorted((option(example), example.question_id) for example in examples)


def _step(number: int, step: Step) -> str:
    """Return one pick as HTML: its most probable candidates, the picked one first.

    Args:
        number: Number of the pick, counted from 0.
        step: The step.
    """
    rows = [
        _bar(f"{each.example.question} → {each.example.answer}", each.probability, picked=i == 0)
        for i, each in enumerate(step.top)
    ]
    left = step.choices - len(step.top)
    if left:
        rows.append(_bar(f"{left} others together", step.others, picked=False))
    head = f"<h4>Pick {number + 1} <small>of {step.choices} candidates</small></h4>"
    return head + "".join(rows)


def _stop(number: int, count: int | None, stop: float | None, stopping: Shown | None) -> str:
    """Return how probable stopping was before a pick, and whether the policy stopped there.

    Args:
        number: Number of the pick, counted from 0.
        count: How many demonstrations the method that stops has shown; None if there is none.
        stop: Probability of stopping before this pick.
        stopping: Result of the method that stops.
    """
    if stopping is None or stop is None:
        return ""
    if number != count:
        return _note(f"Probability of stopping before this pick: {_percent(stop)}; it continued.")
    what = "Another demonstration" if count else "A demonstration"
    said = (
        f"Probability of stopping before this pick: {_percent(stop)}. {what} is not "
        f"worth {stopping.price:g}, so “{STOPPING}” ends here."
    )
    return f'<p class="lp-note lp-stopped">{escape(said)}</p>'


def _bar(text: str, share: float, *, picked: bool) -> str:
    kind = " lp-picked" if picked else ""
    return (
        f'<div class="lp-bar{kind}" style="--share:{100 * share:.1f}%" title="{escape(text)}">'
        f"<span>{escape(text)}</span><b>{_percent(share)}</b></div>"
    )


def _nothing(shown: Shown) -> str:
    return "no demonstrations" if shown.method in (ZERO_SHOT, BY_HAND) else "shows none"


def _note(text: str) -> str:
    return f'<p class="lp-note">{escape(text)}</p>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _data_url(path: str) -> str:
    image = open_image(path)
    image.thumbnail((SIDE, SIDE))
    stream = BytesIO()
    image.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
