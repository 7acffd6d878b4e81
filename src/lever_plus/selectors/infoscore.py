"""InfoScore: how much demonstrations raise the probability of the query's true answer.

InfoScore(c | prefix) = P(y | prefix + c, x) - P(y | prefix, x), with P the geometric mean of the
answer tokens' probabilities by teacher forcing (Yang et al. 2024, "Lever LM", arXiv 2312.10104).
The gains of a sequence telescope, so beam search ranks sequences by P(y | sequence, x).
Deviation: a new demonstration is appended after the prefix, so that shot k of a pointer is always
its first k ICDs; the paper prepends it.
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


class Found(NamedTuple):
    """Demonstrations and their InfoScore."""

    examples: tuple[Example, ...]
    info_score: float

    @property
    def by_id(self) -> ScoredSequence:
        """The same with ids, as files hold it."""
        return ScoredSequence(tuple(e.question_id for e in self.examples), self.info_score)


def beam_search(
    vlm: Vlm,
    queries: Sequence[tuple[Query, str]],
    pools: Sequence[Sequence[Example]],
    *,
    shots: int,
    beam: int,
    description: str = "InfoScore",
) -> list[list[list[Found]]]:
    """Search the sequences of highest InfoScore, all queries side by side.

    Args:
        vlm: The frozen VLM.
        queries: Each with the answer that it is scored against.
        pools: Pool of each query.
        shots: Length of the sequences.
        beam: Sequences kept at every step.
        description: Label of the progress bars.

    Returns:
        For lengths 1..shots, for each query, its `beam` best sequences, best first.
    """
    alone = vlm.log_likelihoods(
        [Request((), query, answer) for query, answer in queries],
        description=f"{description}, 0 shots",
    )
    base = [float(np.exp(value)) for value in alone]
    steps: list[list[list[Found]]] = []
    kept = [[Found((), 0.0)] for _ in queries]
    for shot in range(1, shots + 1):
        grown = [
            (number, (*sequence.examples, candidate))
            for number, pool in enumerate(pools)
            for sequence in kept[number]
            for candidate in pool
            if candidate not in sequence.examples
        ]
        requests = [Request(shown, *queries[number]) for number, shown in grown]
        values = vlm.log_likelihoods(requests, description=f"{description}, shot {shot}")
        found: list[list[Found]] = [[] for _ in queries]
        for (number, shown), value in zip(grown, values, strict=True):
            found[number].append(Found(shown, float(np.exp(value)) - base[number]))
        kept = [sorted(sequences, key=_rank)[:beam] for sequences in found]
        steps.append(kept)
    return steps


def _rank(sequence: Found) -> tuple[float, tuple[int, ...]]:
    """Ties go to the smaller ids, so that equal data give equal files."""
    return -sequence.info_score, tuple(example.question_id for example in sequence.examples)


class InfoScoreSearch:
    """Searches with the true answers: a lower bound on what any policy could reach."""

    def __init__(self, vlm: Vlm, answered: Iterable[Example], beam: int) -> None:
        """Keep the VLM, what the true answers are, and how many sequences a step keeps."""
        self._vlm, self._beam = vlm, beam
        self._answers = {example.query: example.answer for example in map(hashed, answered)}

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return the sequence of highest InfoScore that the search finds.

        Raises:
            UserError: The true answer of the query is not known, or the pool is too small, or
                names an example twice.
        """
        return list(self.select_each_shot([query], [pool], shots)[-1][0].examples)

    def select_each_shot(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[list[Selection]]:
        """Return the best sequences of 1..shots demonstrations; they need not be nested."""
        queries, allowed = allowed_pools(queries, pools, shots)
        unknown = [query for query in queries if query not in self._answers]
        if unknown:
            raise UserError(
                f"the InfoScore search needs the true answer of {unknown[0].question!r} "
                f"({unknown[0].image}), which it was not given."
            )
        asked = [(query, self._answers[query]) for query in queries]
        steps = beam_search(
            self._vlm, asked, allowed, shots=shots, beam=self._beam, description="oracle search"
        )
        return [[Selection(best[0].examples) for best in found] for found in steps]
