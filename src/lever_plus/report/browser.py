"""The browser of decisions: its controls, and the data that it shows as one JSON object.

`decisions.js` builds the view from the JSON with text nodes alone: a question text is never markup.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from lever_plus.data.examples import Example
from lever_plus.evaluation.methods import Methods
from lever_plus.evaluation.plain_names import explained
from lever_plus.report.decisions import FLAGS, Choice, Decision, given_answers, said_needs
from lever_plus.report.thumbnails import thumbnails

IMAGES_BUDGET: Final = 3_200_000
"""Characters of all images of the page together."""
Json = dict[str, object]


def browser(
    decisions: Sequence[Decision], examples: Mapping[int, Example], methods: Methods
) -> str:
    """Return the HTML of the browser, its data and its script."""
    data = _safe_json(browser_data(decisions, examples, methods))
    script = files("lever_plus.report").joinpath("decisions.js").read_text(encoding="utf-8")
    filters = "".join(
        f'<button type="button" data-filter="{key}" aria-pressed="false">{escape(label)} '
        f"({sum(key in d.flags for d in decisions)})</button>"
        for key, label in FLAGS.items()
    )
    return (
        f'<p class="note">{len(decisions)} test questions, and what each method showed the model. '
        "Under each demonstration is what the model answered after it and those before it. An "
        "answer is right if any person gave it; its score is the VQA accuracy. The buttons "
        "filter by the answers with the most demonstrations. For any other test question, "
        "run <code>lever-plus show QUESTION_ID</code>.</p>"
        "<noscript><p><strong>The browser of decisions needs JavaScript.</strong></p></noscript>"
        '<div class="controls" hidden><div class="filters" role="group" aria-label="Filter">'
        f'<button type="button" data-filter="" aria-pressed="true">all ({len(decisions)})</button>'
        f'{filters}</div><div class="moves">'
        '<button type="button" data-move="-1">previous</button>'
        '<span class="place" aria-live="polite"></span>'
        '<button type="button" data-move="1">next</button>'
        '<label>question <input type="text" inputmode="numeric" size="10" list="question-ids">'
        '</label><datalist id="question-ids"></datalist></div></div>'
        '<div class="decision"></div><div class="printed"></div>'
        f'<script type="application/json" id="decisions">{data}</script><script>{script}</script>'
    )


def browser_data(
    decisions: Sequence[Decision], examples: Mapping[int, Example], methods: Methods
) -> Json:
    """Return what the browser shows: every image and every example once.

    images: {image id: data URI}; examples: {example id: [image id, question, answer]}; names:
    {method: plain name and name}; decisions: question, human answers with counts, what it needs,
    flags, and the choices of every method.
    """
    used = sorted({i for decision in decisions for i in decision.example_ids})
    images = {examples[i].image_id: examples[i].image for i in used}
    return {
        "images": thumbnails(images, IMAGES_BUDGET),
        "examples": {
            i: [examples[i].image_id, examples[i].question, examples[i].answer] for i in used
        },
        "names": {method.name: explained(method) for method in methods},
        "decisions": [_decision(decision) for decision in decisions],
    }


def _decision(decision: Decision) -> Json:
    return {
        "id": decision.example.question_id,
        "answers": given_answers(decision.example),
        "needs": said_needs(decision),
        "flags": decision.flags,
        "choices": [_choice(choice) for choice in decision.choices],
    }


def _choice(choice: Choice) -> Json:
    answers = [[a.shot, a.answer, int(a.right), round(a.score, 3)] for a in choice.answers]
    shown = choice.answers[-1:] if choice.nested else choice.answers
    return {
        "method": choice.method,
        "seed": choice.seed,
        "pointers": [a.pointer for a in shown],
        "kinds": [a.kinds for a in shown],
        "logProbs": [round(value, 3) for value in choice.log_probs],
        "answers": answers,
    }


def _safe_json(data: Json) -> str:
    """Return JSON that can neither end the script element that it is in nor open a comment."""
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
