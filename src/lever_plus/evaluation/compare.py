"""Comparing selectors on questions of one's own: the public `evaluate`."""

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
"""Human answers of a question, for the official metric."""


@dataclass(frozen=True)
class Evaluation:
    """What selectors gave on the same questions.

    Attributes:
        scores: A row a question, method and number of demonstrations.
        rows: Accuracy (official VQA accuracy in [0, 1]) of every method at every number of
            demonstrations, with n and 95 % interval: `method`, `shots`, `accuracy`, `ci95`, `n`,
            and the mean length of its prompts, `demonstrations` and `prompt_tokens`.
        means: The same over 1..K demonstrations.
        differences: Of every method to the first one, paired by question, with 95 % interval:
            `method`, `versus`, `shots`, `difference`, `ci95`, `n`, `p`.
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
    """Compare selectors on questions, before one frozen VLM.

    Args:
        selectors: {name: selector}; differences are taken to the first. Zero-shot is always there.
        questions: With their human answers.
        pools: One pool for all questions, or a pool for each; what shows a question's own image is
            left out of its pool.
        vlm: See `open_vlm`.
        shots: Largest number of demonstrations.
        resamples: Bootstrap resamples; images are resampled with all their questions.
        allow_fallback: Score questions that do not have ten human answers by exact match, and mark
            them; else they are refused.

    Raises:
        UserError: There is nothing to compare, a question cannot be scored, or a text cannot be in
            a prompt.
        PointerError: A selector chose an example outside a pool, or one twice.
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
    """Return a pool for each question, without its own image."""
    shared = [hashed(pool) for pool in pools if isinstance(pool, Example)]
    own = [list(map(hashed, pool)) for pool in pools if not isinstance(pool, Example)]
    if bool(shared) == bool(own) or (own and len(own) != len(questions)):
        raise UserError(
            f"there are {len(questions)} questions, but {len(own)} pools and {len(shared)} "
            "examples: give a list of examples, or a list of them for every question."
        )
    return [
        [e for e in pool if e.image_sha256 != question.image_sha256]
        for question, pool in zip(questions, own or [shared] * len(questions), strict=True)
    ]


def _numbered(questions: Sequence[Example], *, allow_fallback: bool) -> list[Example]:
    """Return the questions with ids: images by their content, questions in their order."""
    images: dict[str, int] = {}
    numbered = []
    for number, question in enumerate(map(hashed, questions), start=1):
        if len(question.answers) != HUMANS and not allow_fallback:
            raise UserError(
                f"question {question.question!r} ({question.image}) has {len(question.answers)} "
                f"human answers; the official metric needs {HUMANS}. Pass allow_fallback=True to "
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
