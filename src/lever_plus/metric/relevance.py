"""How near a wrong answer comes to the human ones: a term of some rewards, never an accuracy."""

import difflib
from collections import Counter
from collections.abc import Iterable

from lever_plus.metric.vqa import normalize_answer


def relevance(answer: str, answers: Iterable[str]) -> float:
    """Return how near an answer comes to the nearest human one, in [0, 1].

    The better of token F1 and edit similarity (difflib's ratio). Both sides are
    normalised as the VQA metric does it.
    """
    given = normalize_answer(answer)
    return max(_nearness(given, human) for human in {normalize_answer(a) for a in answers})


def _nearness(given: str, human: str) -> float:
    return max(_token_f1(given, human), difflib.SequenceMatcher(None, given, human).ratio())


def _token_f1(given: str, human: str) -> float:
    ours, theirs = Counter(given.split()), Counter(human.split())
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0
