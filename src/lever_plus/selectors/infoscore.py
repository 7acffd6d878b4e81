"""InfoScore: how much demonstrations raise the probability of the query's true answer.

InfoScore(c | prefix) = P(y | prefix + c, x) - P(y | prefix, x), with P the geometric mean of the
answer tokens' probabilities by teacher forcing (Yang et al. 2024, "Lever LM", arXiv 2312.10104).
The gains of a sequence telescope, so beam search ranks sequences by P(y | sequence, x).
Deviation: a new demonstration is appended after the prefix, so that shot k of a pointer is always
its first k ICDs; the paper prepends it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lever_plus.data.pools import Pools
from lever_plus.vlm.request import Request, Vlm


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """A pointer and its InfoScore: P(y | pointer, x) - P(y | no demonstration, x)."""

    pointer: tuple[int, ...]
    info_score: float


def beam_search(
    vlm: Vlm,
    pools: Pools,
    queries: Sequence[int],
    *,
    shots: int,
    beam: int,
    description: str = "InfoScore",
) -> list[Mapping[int, list[ScoredSequence]]]:
    """Search the sequences of highest InfoScore, all queries side by side.

    Args:
        vlm: The frozen VLM.
        pools: Pool of every query.
        queries: Query ids; each is scored against its own answer.
        shots: Length of the sequences.
        beam: Sequences kept at every step.
        description: Label of the progress bars.

    Returns:
        One mapping a step (lengths 1..shots): {query id: its `beam` best sequences, best first}.
    """
    alone = vlm.log_likelihoods(
        [Request((), q) for q in queries], description=f"{description}, 0 shots"
    )
    base = {q: float(np.exp(value)) for q, value in zip(queries, alone, strict=True)}
    steps: list[Mapping[int, list[ScoredSequence]]] = []
    kept = {q: [ScoredSequence((), 0.0)] for q in queries}
    for shot in range(1, shots + 1):
        requests = [
            Request((*sequence.pointer, candidate), q)
            for q in queries
            for sequence in kept[q]
            for candidate in pools.of(q)
            if candidate not in sequence.pointer
        ]
        values = vlm.log_likelihoods(requests, description=f"{description}, shot {shot}")
        found: dict[int, list[ScoredSequence]] = {q: [] for q in queries}
        for request, value in zip(requests, values, strict=True):
            score = float(np.exp(value)) - base[request.query]
            found[request.query].append(ScoredSequence(request.demonstrations, score))
        # Ties go to the smaller ids, so that equal data give equal files.
        kept = {
            q: sorted(found[q], key=lambda s: (-s.info_score, s.pointer))[:beam] for q in queries
        }
        steps.append(kept)
    return steps
