"""VQA accuracy of one prediction against its human answers, in three conventions.

Source: `PythonEvaluationTools/vqaEvaluation/vqaEval.py` of GT-Vision-Lab/VQA at commit a013f00 (the
newest public version, `official`) and at its parent (`pre2021`), rewritten from a specification.

Deviations, none of which changes the score of a well-formed annotation file:

* The original normalises the annotations in place, so that a second evaluation scores differently;
  these functions are pure.
* The original leaves an annotator out by comparing whole annotation records, so that it drops equal
  answers together if the records have no id; here an annotator is left out by position.
* The original is Python 2 code. Its ASCII digits and one-to-one lower-casing are kept; whitespace
  is what this Python calls whitespace, which differs for U+180E alone.
* Scores are in [0, 1] and not rounded to two decimals of a per cent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from lever_plus.metric.contractions import CONTRACTIONS

Convention: TypeAlias = Literal["official", "pre2021", "community"]
"""How a prediction and the answers are made comparable; see `vqa_accuracy`."""

_Comparable: TypeAlias = tuple[str, Sequence[str]]

_MATCHES_FOR_FULL_CREDIT = 3
# Training scores about a million predictions that are mostly the same few thousand short strings.
_CACHED_STRINGS = 65_536

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"[0-9],[0-9]")
# The original writes "(?!<=\d)" in front, a look-behind with its characters swapped. It always
# holds, so a period that ends a number goes as well: "5." becomes "5".
_PERIOD = re.compile(r"\.(?![0-9])")
# The original passes the flag re.UNICODE (32) where `sub` expects the number of replacements.
_MOST_PERIODS_REMOVED = 32

# The two letters whose lower case in Python 3 depends on context or is longer than one character.
_ONE_TO_ONE_LOWER = str.maketrans({"\u0130": "i", "\u03a3": "\u03c3"})
_ZERO_TO_TEN = "zero one two three four five six seven eight nine ten"
_NUMBER_WORDS = {word: str(n) for n, word in enumerate(_ZERO_TO_TEN.split())} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})


def _clean(text: str) -> str:
    """Put the text on one line without surrounding whitespace."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _strip_punctuation(text: str) -> str:
    """Remove punctuation, or turn it into spaces, by the rule of the original.

    A mark becomes a space only where it seems to join words: if it touches no space anywhere in the
    text and the text has no number such as "1,000". Otherwise all its occurrences vanish.
    """
    has_grouped_number = _DIGIT_COMMA_DIGIT.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        # Looked up in the given text: spaces put in for earlier marks must not count.
        vanishes = has_grouped_number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if vanishes else " ")
    return _PERIOD.sub("", result, count=_MOST_PERIODS_REMOVED)


def _normalize_words(text: str) -> str:
    """Lower-case the words, write numbers as digits, drop articles and restore apostrophes."""
    words = text.translate(_ONE_TO_ONE_LOWER).lower().split()
    kept = (_NUMBER_WORDS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


@lru_cache(maxsize=_CACHED_STRINGS)
def _normal_form(text: str) -> str:
    """Return the normal form, which is computed once per distinct text."""
    return _normalize_words(_strip_punctuation(_clean(text)))


def normalize_answer(text: str) -> str:
    """Return the official VQA normal form of an answer.

    The form is lower-case, without articles and most punctuation, with the words "none" and "zero"
    to "ten" as digits. It can be empty: the normal form of "A" is "".

    Args:
        text: A prediction or a human answer.

    Returns:
        The normal form. Normalising it again changes nothing, unless the text holds more than 32
        periods, the most that the original removes in one pass.
    """
    return _normal_form(text)


def _comparable_community(prediction: str, answers: Sequence[str]) -> _Comparable:
    """Normalise both sides, always."""
    return _normal_form(prediction), [_normal_form(answer) for answer in answers]


def _comparable_official(prediction: str, answers: Sequence[str]) -> _Comparable:
    """Normalise both sides, unless all annotators gave the very same answer."""
    cleaned = [_clean(answer) for answer in answers]
    if len(set(cleaned)) == 1:
        return _clean(prediction), cleaned
    return _comparable_community(prediction, cleaned)


def _comparable_pre2021(prediction: str, answers: Sequence[str]) -> _Comparable:
    """Normalise the prediction; strip the answers' punctuation unless they are unanimous."""
    # This version does not clean the answers: "yes" and "yes " are two different answers.
    if len(set(answers)) == 1:
        return _normal_form(prediction), answers
    return _normal_form(prediction), [_strip_punctuation(answer) for answer in answers]


_COMPARABLE: Mapping[str, Callable[[str, Sequence[str]], _Comparable]] = {
    "official": _comparable_official,
    "pre2021": _comparable_pre2021,
    "community": _comparable_community,
}


def _leave_one_out_mean(matches: int, annotators: int) -> float:
    """Average, over the annotators, the credit that the others' matching answers give.

    Args:
        matches: How many annotators gave the predicted answer.
        annotators: How many annotators there are.

    Returns:
        The mean of min(1, matches among the others / 3).
    """
    full = _MATCHES_FOR_FULL_CREDIT
    # An annotator who agrees does not count as a match of their own. Whole thirds are summed so
    # that equal counts give equal floats whatever the order of the answers.
    thirds = matches * min(full, matches - 1) + (annotators - matches) * min(full, matches)
    return thirds / (full * annotators)


def _check_arguments(answers: Sequence[str], convention: str) -> None:
    """Refuse arguments that would otherwise give a misleading number."""
    if convention not in _COMPARABLE:
        choices = ", ".join(_COMPARABLE)
        raise ValueError(f"Unknown convention {convention!r}: choose one of {choices}.")
    if isinstance(answers, str):
        raise TypeError(f"answers must be a list of human answers, not the one string {answers!r}.")
    if not answers:
        raise ValueError("VQA accuracy needs at least one human answer, but answers is empty.")


def vqa_accuracy(
    prediction: str, answers: Sequence[str], convention: Convention = "community"
) -> float:
    """Score a prediction against the human answers to its question.

    The conventions agree on most questions and differ in what is normalised before the comparison:

    * `official`: both sides, but neither if all cleaned answers are identical. There "Yes" scores 0
      against ten times "yes".
    * `pre2021`: the prediction always; the answers lose their punctuation only, and nothing if they
      are all identical. There "two" scores 0 against ten times "two".
    * `community`: both sides, always. Most published re-implementations do this.

    Args:
        prediction: The answer to score, already cut out of the model's output.
        answers: The human answers, usually ten; their order does not matter.
        convention: Which of the three comparisons to make.

    Returns:
        A number in [0, 1]. With ten answers, 0, 1, 2, 3 and more matches give 0, 0.3, 0.6, 0.9, 1.

    Raises:
        ValueError: If `answers` is empty or the convention is unknown.
        TypeError: If `answers` is a single string.
    """
    _check_arguments(answers, convention)
    predicted, given = _COMPARABLE[convention](prediction, answers)
    return _leave_one_out_mean(sum(answer == predicted for answer in given), len(given))
