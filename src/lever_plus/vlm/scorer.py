"""Scores of pointers: every distinct request is asked once, then scored by the official metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.examples import Example
from lever_plus.metric.vqa import normalize_answer, vqa_accuracy
from lever_plus.vlm.request import Request, Vlm

METRIC: Final = "VQA accuracy, convention community"
"""Convention of every score; records that are exact matches instead say so one by one."""


@dataclass(frozen=True, slots=True)
class ShotScore:
    """The VLM's answer to a query at one shot, and its score.

    Attributes:
        answer: The generated answer.
        vqa_correct: 1 if any human gave this answer (accuracy above 0), else 0.
        vqa_acc_score: Official VQA accuracy in [0, 1], convention "community".
        fallback: Whether it is an exact match instead, see `Example.fallback`.
    """

    answer: str
    vqa_correct: int
    vqa_acc_score: float
    fallback: bool = False


class Scorer:
    """Asks a VLM and scores its answers."""

    def __init__(self, vlm: Vlm) -> None:
        """Keep the VLM; it remembers answers if there is a store before it."""
        self.vlm = vlm

    def score(self, requests: Sequence[Request], description: str = "answers") -> list[ShotScore]:
        """Score requests; those that stand here twice are asked once."""
        distinct = sorted(set(requests))
        answers = self.vlm.answers(distinct, description=description)
        scores = {
            request: score_answer(answer, self.vlm.examples[request.query])
            for request, answer in zip(distinct, answers, strict=True)
        }
        return [scores[request] for request in requests]

    def score_pointers(
        self,
        queries: Sequence[int],
        pointers: Sequence[Sequence[int]],
        description: str = "answers",
    ) -> list[list[ShotScore]]:
        """Score every pointer at every shot 1..K.

        Args:
            queries: Query id of each pointer.
            pointers: Example ids, in the order in which they stand in the prompt.
            description: Label of the progress bar.

        Returns:
            For each pointer, its scores at shots 1, 2, ..., len(pointer).
        """
        scores = iter(self.score(_prefixes(queries, pointers), description))
        return [[next(scores) for _ in pointer] for pointer in pointers]

    def gt_probs(
        self,
        queries: Sequence[int],
        pointers: Sequence[Sequence[int]],
        description: str = "true answers",
    ) -> NDArray[np.float32]:
        """Return the probability of each query's true answer at shots 1..K, float [pointers, K].

        The geometric mean of its tokens' probabilities, so that long answers are not punished.
        """
        requests = _prefixes(queries, pointers)
        distinct = sorted(set(requests))
        values = self.vlm.log_likelihoods(distinct, description=description)
        found = dict(zip(distinct, np.exp(values), strict=True))
        flat = np.array([found[request] for request in requests], dtype=np.float32)
        return flat.reshape(len(pointers), -1)


def _prefixes(queries: Sequence[int], pointers: Sequence[Sequence[int]]) -> list[Request]:
    """Return the request of every pointer at every shot 1..K."""
    return [
        Request(tuple(pointer[:shot]), query)
        for query, pointer in zip(queries, pointers, strict=True)
        for shot in range(1, len(pointer) + 1)
    ]


def score_answer(answer: str, query: Example) -> ShotScore:
    """Score an answer by the official metric; by exact match only where the example says so."""
    if query.fallback:
        right = normalize_answer(answer) in {normalize_answer(given) for given in query.answers}
        return ShotScore(answer, int(right), float(right), fallback=True)
    accuracy = vqa_accuracy(answer, query.answers)
    return ShotScore(answer=answer, vqa_correct=int(accuracy > 0), vqa_acc_score=accuracy)


def by_id(splits: Mapping[str, Sequence[Example]]) -> dict[int, Example]:
    """Return all examples of all splits by their id."""
    return {e.question_id: e for examples in splits.values() for e in examples}
