"""`lever_plus.evaluate`: compare selectors on your own questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lever_plus.data.examples import Example, hashed
from lever_plus.errors import UserError
from lever_plus.evaluation.costs import with_costs
from lever_plus.evaluation.evaluate import evaluate_selector, evaluate_zero_shot
from lever_plus.evaluation.methods import EVALUATE, ZERO_SHOT, Method, Methods
from lever_plus.evaluation.summary import summarise
from lever_plus.selectors.base import Selector
from lever_plus.vlm.request import Vlm
from lever_plus.vlm.scorer import Scorer
from lever_plus.vlm.store.cached import StoredVlm

HUMANS = 10
"""The number of human answers per question that VQA accuracy needs."""


@dataclass(frozen=True)
class Evaluation:
    """The results of selectors on the same questions.

    Attributes:
        scores: One row for each question, method and number of demonstrations.
        rows: The VQA accuracy (convention "community", see `metric.vqa_accuracy`), in [0, 1], of
            each method with each number of demonstrations: `method`, `shots`, `accuracy`, `ci95`
            (95 % interval), `n` (questions), and the mean length of its prompts, `demonstrations`
            and `prompt_tokens`.
        means: The same, as the mean over 1..K demonstrations.
        differences: The accuracy of each further selector minus that of the first, paired by
            question (zero-shot is not among them): `method`, `versus`, `shots`, `difference`,
            `ci95`, `n`, `p`.
    """

    scores: pd.DataFrame
    rows: list[dict[str, Any]]
    means: list[dict[str, Any]]
    differences: list[dict[str, Any]]

    def __str__(self) -> str:
        """Return the accuracies as a table, x 100 with 95 % intervals."""
        lines = [f"{'method':<20} {'shots':>5} {'accuracy [95 %]':>20} {'n':>6}"]
        for row in self.rows:
            low, high = row["ci95"]
            value = f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            lines.append(f"{row['method']:<20} {row['shots']:>5} {value:>20} {row['n']:>6}")
        return "\n".join(lines)


def evaluate(
    selectors: Mapping[str, Selector],
    questions: Sequence[Example],
    pools: Sequence[Example] | Sequence[Sequence[Example]],
    vlm: Vlm,
    *,
    shots: int = 4,
    resamples: int = 2000,
    allow_fallback: bool = False,
) -> Evaluation:
    """Compare selectors on questions, with one frozen VLM.

    Args:
        selectors: {name: selector}; the others are compared with the first. Zero-shot (no
            demonstrations) is always added.
        questions: The questions, with their human answers.
        pools: One pool for all questions, or a list with one pool for each question; examples with
            a question's own image are left out of its pool.
        vlm: The VLM, see `open_vlm`.
        shots: Largest number of demonstrations.
        resamples: Number of bootstrap resamples; images are resampled with all their questions.
        allow_fallback: Score questions that do not have ten human answers by exact match, and mark
            them in the results; without it they are refused.

    Returns:
        The scores, and the accuracies and differences computed from them.

    Raises:
        UserError: There is nothing to compare, a question cannot be scored, or a text cannot be in
            a prompt.
        PointerError: A selector chose an example outside a pool, or the same one twice.
    """
    if not selectors or not questions:
        raise UserError("evaluate needs at least one selector and one question.")
    if ZERO_SHOT in selectors:
        raise UserError(f"{ZERO_SHOT} is always evaluated: give your selector another name.")
    asked = _numbered(questions, allow_fallback=allow_fallback)
    each = _pools(pools, asked)
    if isinstance(vlm, StoredVlm):
        vlm.check(query.query for query in asked)
        vlm.check(example for pool in each for example in pool)
    scorer = Scorer(vlm)
    tables = [evaluate_zero_shot(scorer, ZERO_SHOT, asked)]
    for name, selector in selectors.items():
        tables.append(evaluate_selector(scorer, name, 0, selector, asked, each, shots))
    scores = pd.concat(tables, ignore_index=True)
    own = [Method(name, EVALUATE, "selector", "a selector of your own") for name in selectors]
    zero = Method(ZERO_SHOT, EVALUATE, "baseline", "the VLM without demonstrations")
    first = [next(iter(selectors))]
    found = with_costs(summarise(scores, Methods([zero, *own]), resamples, versus=first), scores)
    return Evaluation(scores, found["rows"], found["means"], found["differences"])


def _pools(
    pools: Sequence[Example] | Sequence[Sequence[Example]], questions: Sequence[Example]
) -> list[list[Example]]:
    """Return a pool for each question, without examples of its own image."""
    shared = [hashed(pool) for pool in pools if isinstance(pool, Example)]
    own = [list(map(hashed, pool)) for pool in pools if not isinstance(pool, Example)]
    if bool(shared) == bool(own) or (own and len(own) != len(questions)):
        raise UserError(
            f"there are {len(questions)} questions, but {len(own)} pools and {len(shared)} "
            "examples: give one list of examples, or one such list for each question."
        )
    return [
        [e for e in pool if e.image_sha256 != question.image_sha256]
        for question, pool in zip(questions, own or [shared] * len(questions), strict=True)
    ]


def _numbered(questions: Sequence[Example], *, allow_fallback: bool) -> list[Example]:
    """Return the questions with ids: images by content, questions by position."""
    images: dict[str, int] = {}
    numbered = []
    for number, question in enumerate(map(hashed, questions), start=1):
        if len(question.answers) != HUMANS and not allow_fallback:
            raise UserError(
                f"question {question.question!r} ({question.image}) has {len(question.answers)} "
                f"human answers; VQA accuracy needs {HUMANS}. Pass allow_fallback=True to "
                "score such questions by exact match."
            )
        image = images.setdefault(question.image_sha256, len(images) + 1)
        numbered.append(
            replace(
                question,
                question_id=number,
                image_id=image,
                answers=question.answers or (question.answer,),
                fallback=len(question.answers) != HUMANS,
            )
        )
    return numbered
