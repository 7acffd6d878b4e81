"""How near a wrong answer is to the human ones: a term of some rewards, never an accuracy."""

import difflib
from collections import Counter
from collections.abc import Iterable

from lever_plus.metric.vqa import normalize_answer


def relevance(answer: str, answers: Iterable[str]) -> float:
    """Return how near an answer is to the nearest human one, in [0, 1].

    Nearness is the larger of token F1 and the ratio of `difflib.SequenceMatcher`, after both
    answers are normalised as in the VQA metric.

    Args:
        answer: The VLM's answer.
        answers: The human answers, at least one.
    """
    given = normalize_answer(answer)
    return max(_nearness(given, human) for human in {normalize_answer(a) for a in answers})


def _nearness(given: str, human: str) -> float:
    return max(_token_f1(given, human), difflib.SequenceMatcher(None, given, human).ratio())


def _token_f1(given: str, human: str) -> float:
    ours, theirs = Counter(given.split()), Counter(human.split())
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0
