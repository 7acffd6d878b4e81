"""Scores of pointers: each distinct request is asked once and scored by VQA accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lever_plus.data.examples import Example, Query
from lever_plus.errors import UserError
from lever_plus.metric.vqa import normalize_answer, vqa_accuracy
from lever_plus.vlm.request import Request, Vlm

METRIC: Final = "VQA accuracy, convention community"
"""The metric behind scores in records; a record scored by exact match instead says so itself."""


class Asked(NamedTuple):
    """A prompt whose answer is scored: demonstrations in order, and the example that is asked."""

    demonstrations: tuple[Example, ...]
    example: Example


@dataclass(frozen=True, slots=True)
class ShotScore:
    """The VLM's answer to a query at one shot, and its score.

    Attributes:
        answer: The generated answer.
        vqa_correct: 1 if any human gave this answer (accuracy above 0), else 0.
        vqa_acc_score: VQA accuracy in [0, 1], convention "community".
        fallback: Whether the score is an exact match instead, see `Example.fallback`.
    """

    answer: str
    vqa_correct: int
    vqa_acc_score: float
    fallback: bool = False


class Scorer:
    """Asks a VLM and scores its answers.

    Attributes:
        vlm: The VLM.
        requests: How many requests were made so far; equal requests in one call count once.
            Requests that a store answered count too, so that equal settings give equal numbers.
    """

    def __init__(self, vlm: Vlm) -> None:
        """Keep the VLM."""
        self.vlm, self.requests = vlm, 0

    def score(self, asked: Sequence[Asked], description: str = "answers") -> list[ShotScore]:
        """Return the score of each prompt; equal prompts are asked once."""
        distinct, places = _distinct(asked)
        queries = _queries(distinct)
        requests = [Request(one.demonstrations, queries[one.example]) for one in distinct]
        self.requests += len(requests)
        answers = self.vlm.answers(requests, description=description)
        scores = [
            score_answer(answer, one.example) for one, answer in zip(distinct, answers, strict=True)
        ]
        return [scores[place] for place in places]

    def prompt_tokens(self, asked: Sequence[Asked]) -> list[int] | None:
        """Return how many tokens each prompt has, without asking; None if that is not known."""
        queries = _queries(asked)
        requests = [Request(one.demonstrations, queries[one.example]) for one in asked]
        return self.vlm.prompt_tokens(requests)

    def score_pointers(
        self,
        examples: Sequence[Example],
        pointers: Sequence[Sequence[Example]],
        description: str = "answers",
    ) -> list[list[ShotScore]]:
        """Score every pointer at every shot 1..K.

        Args:
            examples: For each pointer, the example that is asked after its demonstrations.
            pointers: For each example, its demonstrations in prompt order.
            description: Label of the progress bar.

        Returns:
            For each pointer, its scores at shots 1, 2, ..., len(pointer).
        """
        scores = iter(self.score(_prefixes(examples, pointers), description))
        return [[next(scores) for _ in pointer] for pointer in pointers]

    def gt_probs(
        self,
        examples: Sequence[Example],
        pointers: Sequence[Sequence[Example]],
        description: str = "true answers",
    ) -> NDArray[np.float32]:
        """Return the probability of each example's answer at shots 1..K, float [pointers, K].

        This is the geometric mean of the probabilities of the answer's tokens, so that long answers
        are not at a disadvantage.
        """
        flat = self._gt_probs(_prefixes(examples, pointers), description)
        return flat.reshape(len(pointers), -1)

    def gt_probs_alone(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Return the probability of each example's answer without demonstrations, float [n]."""
        return self._gt_probs([Asked((), example) for example in examples], "true answers")

    def _gt_probs(self, asked: Sequence[Asked], description: str) -> NDArray[np.float32]:
        distinct, places = _distinct(asked)
        queries = _queries(distinct)
        requests = [
            Request(one.demonstrations, queries[one.example], one.example.answer)
            for one in distinct
        ]
        self.requests += len(requests)
        values = self.vlm.log_likelihoods(requests, description=description)
        return np.exp(values)[places].astype(np.float32)


def _distinct(asked: Sequence[Asked]) -> tuple[list[Asked], list[int]]:
    """Return the distinct prompts, and for each prompt its index among them."""
    numbers: dict[Asked, int] = {}
    places = [numbers.setdefault(one, len(numbers)) for one in asked]
    return list(numbers), places


def _queries(asked: Sequence[Asked]) -> dict[Example, Query]:
    """Return the query of each example, one object per example."""
    return {example: example.query for example in {one.example for one in asked}}


def _prefixes(examples: Sequence[Example], pointers: Sequence[Sequence[Example]]) -> list[Asked]:
    """Return the prompt of every pointer at every shot 1..K."""
    return [
        Asked(tuple(pointer[:shot]), example)
        for example, pointer in zip(examples, pointers, strict=True)
        for shot in range(1, len(pointer) + 1)
    ]


def score_answer(answer: str, example: Example) -> ShotScore:
    """Score an answer by VQA accuracy, or by exact match if `example.fallback` is set.

    Raises:
        UserError: The example has no human answers.
    """
    if not example.answers:
        raise UserError(
            f"question {example.question!r} ({example.image}) has no human answers, so answers to "
            "it cannot be scored: give it `answers`."
        )
    if example.fallback:
        right = normalize_answer(answer) in {normalize_answer(given) for given in example.answers}
        return ShotScore(answer, int(right), float(right), fallback=True)
    accuracy = vqa_accuracy(answer, example.answers)
    return ShotScore(answer=answer, vqa_correct=int(accuracy > 0), vqa_acc_score=accuracy)
