"""InfoScore: how much demonstrations raise the probability of the query's true answer.

For a query x with the true answer y, a candidate c after a prefix of demonstrations has

    InfoScore(c | prefix) = P(y | prefix + c, x) - P(y | prefix, x)

where P is the geometric mean of the probabilities of the answer's tokens under teacher forcing
(Yang et al. 2024, "Lever LM", arXiv 2312.10104). The terms of a sequence telescope, so beam search
ranks sequences by P(y | sequence, x). Deviation: a new demonstration is appended to the prefix, so
that shot k of a pointer is always its first k demonstrations; the paper prepends it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lever_plus.data.examples import Example, Query, hashed
from lever_plus.errors import UserError
from lever_plus.selectors.base import Selection, allowed_pools
from lever_plus.vlm.request import Request, Vlm


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """A pointer (ids) and its InfoScore: P(y | pointer, x) - P(y | no demonstration, x)."""

    pointer: tuple[int, ...]
    info_score: float


@dataclass(frozen=True, slots=True)
class ScoredPrefix:
    """The InfoScores of all candidates after a prefix.

    Attributes:
        prefix: Ids of the demonstrations that are shown first; () for none.
        candidates: Ids of all other examples of the pool.
        info_scores: For each candidate, P(y | prefix + candidate, x) - P(y | no demonstration, x).
    """

    prefix: tuple[int, ...]
    candidates: tuple[int, ...]
    info_scores: tuple[float, ...]


def best_sequences(scored: Sequence[ScoredPrefix], count: int) -> list[ScoredSequence]:
    """Return the best of the longest sequences that a search scored, best first."""
    longest = max(len(each.prefix) for each in scored)
    found = [
        ScoredSequence((*each.prefix, candidate), score)
        for each in scored
        if len(each.prefix) == longest
        for candidate, score in zip(each.candidates, each.info_scores, strict=True)
    ]
    return sorted(found, key=lambda each: (-each.info_score, each.pointer))[:count]


class Found(NamedTuple):
    """Demonstrations and their InfoScore, P(y | examples, x) - P(y | no demonstration, x)."""

    examples: tuple[Example, ...]
    info_score: float


class Searched(NamedTuple):
    """What a beam search found.

    Attributes:
        kept: For lengths 1, 2, ..., and each query, the best sequences, best first.
        scored: For each query, all prefixes that the search extended, shortest first, with the
            InfoScores of all extensions: far more than it kept, without any further request.
    """

    kept: list[list[list[Found]]]
    scored: list[list[ScoredPrefix]]


def beam_search(
    vlm: Vlm,
    queries: Sequence[tuple[Query, str]],
    pools: Sequence[Sequence[Example]],
    *,
    shots: int,
    beam: int,
    description: str = "InfoScore",
) -> Searched:
    """Search for the sequences of highest InfoScore, for all queries together.

    Args:
        vlm: The frozen VLM.
        queries: Each query with its true answer.
        pools: Pool of each query.
        shots: Length of the sequences.
        beam: Number of sequences that are kept after each step.
        description: Label of the progress bars.
    """
    alone = vlm.log_likelihoods(
        [Request((), query, answer) for query, answer in queries],
        description=f"{description}, 0 shots",
    )
    base = [float(np.exp(value)) for value in alone]
    searched = Searched([], [[] for _ in queries])
    kept = [[Found((), 0.0)] for _ in queries]
    for shot in range(1, shots + 1):
        prefixes = [
            (number, sequence.examples, [c for c in pool if c not in sequence.examples])
            for number, pool in enumerate(pools)
            for sequence in kept[number]
        ]
        requests = [
            Request((*shown, candidate), *queries[number])
            for number, shown, candidates in prefixes
            for candidate in candidates
        ]
        values = iter(vlm.log_likelihoods(requests, description=f"{description}, shot {shot}"))
        found: list[list[Found]] = [[] for _ in queries]
        for number, shown, candidates in prefixes:
            scores = tuple(float(np.exp(next(values))) - base[number] for _ in candidates)
            pairs = zip(candidates, scores, strict=True)
            found[number] += [Found((*shown, candidate), score) for candidate, score in pairs]
            searched.scored[number].append(ScoredPrefix(_ids(shown), _ids(candidates), scores))
        kept = [sorted(sequences, key=_rank)[:beam] for sequences in found]
        searched.kept.append(kept)
    return searched


def _ids(examples: Iterable[Example]) -> tuple[int, ...]:
    return tuple(example.question_id for example in examples)


def _rank(sequence: Found) -> tuple[float, tuple[int, ...]]:
    """Return the sorting key, best first; ties go to smaller ids: equal data give equal files."""
    return -sequence.info_score, _ids(sequence.examples)


class InfoScoreSearch:
    """The oracle, which searches with the true answers: the best possible choice is no worse."""

    def __init__(self, vlm: Vlm, answered: Iterable[Example], beam: int) -> None:
        """Keep what a search needs.

        Args:
            vlm: The frozen VLM.
            answered: The queries with their true answers.
            beam: Number of sequences that are kept after each step.
        """
        self._vlm, self._beam = vlm, beam
        self._answers = {example.query: example.answer for example in map(hashed, answered)}

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return the sequence of highest InfoScore that the search finds.

        Raises:
            UserError: The true answer of the query is not known, or the pool is too small or holds
                an example twice.
        """
        return list(self.select_each_shot([query], [pool], shots)[-1][0].examples)

    def select_each_shot(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[list[Selection]]:
        """Return the best sequences of 1, ..., `shots` demonstrations.

        A shorter one need not be the beginning of a longer one.
        """
        queries, allowed = allowed_pools(queries, pools, shots)
        unknown = [query for query in queries if query not in self._answers]
        if unknown:
            raise UserError(
                f"the InfoScore search needs the true answer of {unknown[0].question!r} "
                f"({unknown[0].image}), which it was not given: pass this question with its answer "
                "in `answered`."
            )
        asked = [(query, self._answers[query]) for query in queries]
        found = beam_search(
            self._vlm, asked, allowed, shots=shots, beam=self._beam, description="oracle search"
        )
        return [[Selection(best[0].examples) for best in step] for step in found.kept]
