"""The in-context table: what a VLM can read from demonstrations in the embedded world.

Demonstrations are chosen by rules that know the hidden meanings. A "half" explains one of the
query's two words: its own other word is plain, and says nothing about the query's other word. The
share of right answers for each rule is a metric.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from lever_plus.data.examples import Example
from lever_plus.errors import UserError
from lever_plus.house_words.maker import Meaning
from lever_plus.house_words.words import PHRASINGS, plain_style
from lever_plus.vlm.request import Request, Vlm

KINDS: Final[dict[str, Callable[[Meaning, Meaning], bool]]] = {
    "any": lambda _query, _shown: True,
    "attribute": lambda query, shown: shown.needs == ("attribute",) and _same(query, shown)[0],
    "language": lambda query, shown: shown.needs == ("language",) and _same(query, shown)[1],
    "twin": lambda query, shown: shown.in_house_words and _same(query, shown) == (True, True),
    "other": lambda query, shown: shown.in_house_words and _same(query, shown) == (False, False),
}
"""{kind of demonstration: whether one is of this kind, given the query's meaning and its own}."""
RULES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "none": ((),),
    "half_attribute": (("attribute",),),
    "half_language": (("language",),),
    "two_same_halves": (("attribute", "attribute"), ("language", "language")),
    "both_halves": (("attribute", "language"),),
    "both_halves_reversed": (("language", "attribute"),),
    "both_halves_then_other": (("attribute", "language", "other"),),
    "twin": (("twin",),),
    "two_random": (("any", "any"),),
}
"""{row: its demonstrations' kinds in prompt order}; alternatives are used equally often."""


def _same(query: Meaning, other: Meaning) -> tuple[bool, bool]:
    return query.attribute == other.attribute, query.language == other.language


def in_context_table(
    vlm: Vlm,
    queries: Sequence[Example],
    demonstrations: Sequence[Example],
    meanings: Mapping[int, Meaning],
    count: int,
    seed: int,
) -> dict[str, float]:
    """Return {row: share of right answers} over `count` draws of a query and demonstrations.

    The rows of `RULES` use queries whose two words are both house words. The row "plain" uses any
    query, put into plain words and without demonstrations; it measures how well the VLM sees.

    Args:
        vlm: The VLM.
        queries: Examples that may be asked.
        demonstrations: Examples that may be shown.
        meanings: The meanings of all these, by question id.
        count: Number of draws for each row.
        seed: Seed of the draws.

    Raises:
        UserError: There are no queries in house words, or too few demonstrations of a kind.
    """
    rng = np.random.default_rng([seed, 300])
    asked = [query for query in queries if meanings[query.question_id].in_house_words]
    if not asked:
        raise UserError(
            "the in-context table needs dev questions in house words, but there are none: raise "
            "data.source.dev, or lower data.source.plain_share."
        )
    drawn = [queries[int(i)] for i in rng.integers(len(queries), size=count)]
    plainly = [_plainly(query, meanings[query.question_id], rng) for query in drawn]
    requests = {"plain": [(Request((), query.query), query.answer) for query in plainly]}
    shown = _Demonstrations(demonstrations, meanings)
    for row, alternatives in RULES.items():
        requests[row] = []
        for number, i in enumerate(rng.integers(len(asked), size=count)):
            query, kinds = asked[int(i)], alternatives[number % len(alternatives)]
            picked = shown.draw(rng, meanings[query.question_id], kinds)
            requests[row].append((Request(picked, query.query), query.answer))
    return {row: _share(vlm, *zip(*each, strict=True)) for row, each in requests.items()}


def _plainly(query: Example, meaning: Meaning, rng: np.random.Generator) -> Example:
    """Return the same question in plain words, as a split has only a few of these."""
    words = {"attribute_word": meaning.attribute, "style_word": plain_style(meaning.language)}
    question = replace(meaning, **words).question(str(rng.choice(PHRASINGS)))
    return replace(query, question=question)


class _Demonstrations:
    """The examples that may be shown, grouped by kind and by the query's meaning."""

    def __init__(self, examples: Sequence[Example], meanings: Mapping[int, Meaning]) -> None:
        """Take all examples; they are grouped when needed."""
        self._examples, self._meanings = examples, meanings
        self._sorted: dict[tuple[str, str, str], list[Example]] = {}

    def draw(
        self, rng: np.random.Generator, query: Meaning, kinds: Sequence[str]
    ) -> tuple[Example, ...]:
        """Draw a demonstration of each kind, all different.

        Raises:
            UserError: There are too few demonstrations of a kind.
        """
        picked: list[Example] = []
        for kind in kinds:
            taken = {each.question_id for each in picked}
            fitting = [e for e in self._of(kind, query) if e.question_id not in taken]
            if not fitting:
                raise UserError(
                    f"the in-context table needs demonstrations of kind {kind!r} for every dev "
                    "question, but the training split has too few for one of them: raise "
                    "data.source.train, or move data.source.plain_share towards 0.5."
                )
            picked.append(fitting[int(rng.integers(len(fitting)))])
        return tuple(picked)

    def _of(self, kind: str, query: Meaning) -> list[Example]:
        key = kind, query.attribute, query.language
        if key not in self._sorted:
            fits = KINDS[kind]
            self._sorted[key] = [
                e for e in self._examples if fits(query, self._meanings[e.question_id])
            ]
        return self._sorted[key]


def _share(vlm: Vlm, requests: Sequence[Request], expected: Sequence[str]) -> float:
    answers = vlm.answers(requests, description="in-context table")
    right = [given == answer for given, answer in zip(answers, expected, strict=True)]
    return round(float(np.mean(right)), 4)
