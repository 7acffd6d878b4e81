"""The ideal reader: the answers of a VLM that reads demonstrations perfectly, computed by a rule.

It understands plain words. It reads the meaning of a house word from demonstrations that have a
house word for the same half (attribute or language), because their answers show what they ask: it
takes the meaning of most of them. A demonstration with a plain word for that half says nothing
about it. If meanings are tied, or no demonstration says anything, it guesses among them (or among
all four). So the accuracy that a pointer allows is known without asking a VLM.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Final, Literal, get_args

from lever_plus.data.examples import Example
from lever_plus.house_words.maker import Latent
from lever_plus.house_words.words import ATTRIBUTES, LANGUAGES
from lever_plus.metric.vqa import vqa_accuracy

Kind = Literal["complement", "duplicate", "harmful", "idle"]
"""The kind of a pick, for a query. harmful: it has a house word with another meaning for a half
that the query needs (and may explain the other half). complement: it explains a half that the query
needs and that no earlier pick explained. duplicate: it explains only halves that are explained
already. idle: it has no house word for a half that the query needs; for a query in plain words, all
picks are idle."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MEANINGS: Final = {"attribute": ATTRIBUTES, "language": LANGUAGES}
Told = tuple[str | None, ...]
"""What a demonstration says about each half that a query needs: a meaning, or None."""


class IdealReader:
    """Knows the hidden meaning of each question, and so the answers of a perfect reader."""

    def __init__(self, hidden: Mapping[int, Latent], examples: Mapping[int, Example]) -> None:
        """Take the hidden meanings of all questions, and the examples, by question id."""
        self._hidden, self._examples = hidden, examples

    def needs(self, query_id: int) -> tuple[str, ...]:
        """Return the halves of a query that only demonstrations can explain."""
        return self._hidden[query_id].needs

    def accuracy(self, query_id: int, pointer: Sequence[int]) -> float:
        """Return the expected VQA accuracy of the reader's answer, in [0, 1].

        The expectation is over its guesses.

        Args:
            query_id: Id of the question that is asked.
            pointer: Ids of the demonstrations; their order does not matter to the reader.
        """
        query, told = self._hidden[query_id], [self._told(query_id, i) for i in pointer]
        believed = {half: [_meaning(query, half)] for half in MEANINGS}
        for place, half in enumerate(query.needs):
            believed[half] = _believed(half, (each[place] for each in told))
        answers = [
            query.answer(attribute, language)
            for attribute in believed["attribute"]
            for language in believed["language"]
        ]
        given = self._examples[query_id].answers
        return sum(vqa_accuracy(answer, given) for answer in answers) / len(answers)

    def needed(self, query_id: int, pool: Sequence[int], most: int) -> int | None:
        """Return how many demonstrations from a pool the reader needs to be sure and right.

        It is sure if it need not guess either half. A demonstration that contradicts one half may
        still be needed if no other explains the other half; then others must outvote it.

        Args:
            query_id: Id of the question that is asked.
            pool: Ids of the examples that may be shown.
            most: Largest number of demonstrations.

        Returns:
            The smallest number; None if more than `most` would be needed, or none are enough.
        """
        needs, truth = self.needs(query_id), self._told(query_id, query_id)
        told = Counter(self._told(query_id, i) for i in pool)
        # Examples that say nothing true can only harm, and those that say the same are
        # interchangeable, so there are few pointers to try.
        useful = [each for each in told if any(a == b for a, b in zip(each, truth, strict=True))]
        for count in range(most + 1):
            for chosen in combinations_with_replacement(useful, count):
                if any(chosen.count(each) > told[each] for each in chosen):
                    continue
                if all(
                    _believed(half, (each[place] for each in chosen)) == [truth[place]]
                    for place, half in enumerate(needs)
                ):
                    return count
        return None

    def kinds(self, query_id: int, pointer: Sequence[int]) -> tuple[Kind, ...]:
        """Return the kind of each pick of a pointer, in order.

        A harmful pick may also explain a half, which then counts as explained for later picks.
        """
        truth = self._told(query_id, query_id)
        explained, found = set[int](), list[Kind]()
        for shown in pointer:
            told = self._told(query_id, shown)
            says = {place for place, meaning in enumerate(told) if meaning is not None}
            right = {place for place in says if told[place] == truth[place]}
            if right != says:
                found.append("harmful")
            elif right - explained:
                found.append("complement")
            else:
                found.append("duplicate" if right else "idle")
            explained |= right
        return tuple(found)

    def _told(self, query_id: int, shown_id: int) -> Told:
        """Return what an example says about each half that a query needs."""
        shown = self._hidden[shown_id]
        return tuple(
            _meaning(shown, half) if half in shown.needs else None for half in self.needs(query_id)
        )


def _meaning(latent: Latent, half: str) -> str:
    return latent.attribute if half == "attribute" else latent.language


def _believed(half: str, told: Iterable[str | None]) -> list[str]:
    """Return the meanings that demonstrations say most often for a half, in a fixed order."""
    votes = Counter(told)
    most = max(votes[meaning] for meaning in MEANINGS[half])
    return [meaning for meaning in MEANINGS[half] if votes[meaning] == most]
