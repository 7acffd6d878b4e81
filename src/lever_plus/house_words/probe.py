"""The in-context table: does the tiny VLM really learn from demonstrations?

For questions of the dev split whose words are all house words, demonstrations are chosen by rules
that know the hidden meanings: right ones ask for the same attribute in the same language, halves
share one of the two. The share of right answers by rule is kept as a metric.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.house_words.maker import Meaning
from lever_plus.vlm.request import Request, Vlm

Kind = Callable[[Meaning, Meaning], bool]
RULES: Final[dict[str, tuple[str, ...]]] = {
    "no demonstration": (),
    "two random": ("random", "random"),
    "one right": ("right",),
    "right, then random": ("right", "random"),
    "random, then right": ("random", "right"),
    "complementary halves": ("attribute", "language"),
    "two of each half": ("attribute", "language", "attribute", "language"),
    "four right": ("right", "right", "right", "right"),
}
KINDS: Final[dict[str, Kind]] = {
    "random": lambda _query, _other: True,
    "right": lambda query, other: _same(query, other) == (True, True),
    "attribute": lambda query, other: _same(query, other) == (True, False),
    "language": lambda query, other: _same(query, other) == (False, True),
}


def _same(query: Meaning, other: Meaning) -> tuple[bool, bool]:
    return query.attribute == other.attribute, query.language == other.language


def in_context_table(
    vlm: Vlm,
    queries: Sequence[Example],
    demonstrations: Sequence[Example],
    meanings: dict[int, Meaning],
    count: int,
    seed: int,
) -> dict[str, float]:
    """Return {rule: share of right answers} over `count` draws of a query and its demonstrations.

    "plain words" asks without demonstrations what needs none: it measures perception.

    Raises:
        UserError: There is no question of a kind that the table asks, or no demonstration of one.
    """
    rng = np.random.default_rng([seed, 300])
    asked = {e.question_id: e for e in queries}
    house = [i for i in asked if meanings[i].in_house_words]
    plain = [i for i in asked if meanings[i].in_plain_words]
    if not house or not plain:
        raise UserError(
            "the dev split needs questions in house words and questions in plain words for the "
            "in-context table: raise data.source.dev."
        )
    plainly = [asked[i].answer for i in plain]
    table = {"plain words": _share(vlm, [Request((), asked[i].query) for i in plain], plainly)}
    for rule, kinds in RULES.items():
        requests, answers = list[Request](), list[str]()
        for query in rng.choice(house, count):
            meaning = meanings[int(query)]
            picked = [_draw(rng, meaning, demonstrations, meanings, kind) for kind in kinds]
            requests.append(Request(tuple(picked), asked[int(query)].query))
            answers.append(asked[int(query)].answer)
        table[rule] = _share(vlm, requests, answers)
    return table


def _draw(
    rng: np.random.Generator,
    query: Meaning,
    demonstrations: Sequence[Example],
    meanings: dict[int, Meaning],
    kind: str,
) -> Example:
    """Draw a demonstration that is in the given relation to the query.

    Raises:
        UserError: No demonstration is.
    """
    if not any(KINDS[kind](query, meanings[each.question_id]) for each in demonstrations):
        raise UserError(
            f"the in-context table needs a demonstration of kind {kind!r} for every dev question, "
            "and the training split has none for one of them: raise data.source.train."
        )
    while True:
        drawn = demonstrations[int(rng.integers(len(demonstrations)))]
        if KINDS[kind](query, meanings[drawn.question_id]):
            return drawn


def _share(vlm: Vlm, requests: Sequence[Request], expected: Sequence[str]) -> float:
    answers = vlm.answers(requests, description="in-context table")
    right = [given == answer for given, answer in zip(answers, expected, strict=True)]
    return round(float(np.mean(right)), 4)
