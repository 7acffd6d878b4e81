"""The best of several sampled pointers, chosen with the true answers: a ceiling for a sampler."""

from collections.abc import Iterable, Sequence

import torch

from lever_plus.data.examples import Example, Query, hashed
from lever_plus.errors import UserError
from lever_plus.policy.decoding import Decoded, sample
from lever_plus.policy.network import Encoded, Policy
from lever_plus.selectors.base import Selection, allowed_pools
from lever_plus.selectors.learned import LearnedSelector
from lever_plus.vlm.scorer import Scorer


class BestOfSamples:
    """Samples pointers from a policy, and at each shot takes the one whose answer scores best."""

    def __init__(
        self,
        learned: LearnedSelector,
        scorer: Scorer,
        answered: Iterable[Example],
        count: int,
        seed: int,
        temperature: float = 1.0,
    ) -> None:
        """Keep what is needed to draw and score pointers.

        Args:
            learned: The selector whose policy is sampled.
            scorer: Scores the answers with the sampled pointers.
            answered: The queries with their true answers.
            count: Number of pointers per query.
            seed: Seed of the samples.
            temperature: Temperature of every step.
        """
        self._learned, self._scorer, self._count = learned, scorer, count
        self._seed, self._temperature = seed, temperature
        self._examples = {example.query: example for example in map(hashed, answered)}

    def select(self, query: Query, pool: Sequence[Example], shots: int) -> list[Example]:
        """Return the best sample.

        Raises:
            UserError: The true answers of the query are not known, the pool is too small or holds
                an example twice, or the policy cannot pick that many.
        """
        return list(self.select_each_shot([query], [pool], shots)[-1][0].examples)

    def select_each_shot(
        self, queries: Sequence[Query], pools: Sequence[Sequence[Example]], shots: int
    ) -> list[list[Selection]]:
        """Return the best samples at 1, ..., `shots` demonstrations, each chosen independently."""
        queries, allowed = allowed_pools(queries, pools, shots)
        unknown = [query for query in queries if query not in self._examples]
        if unknown:
            raise UserError(
                f"the best of {self._count} samples needs the true answers to "
                f"{unknown[0].question!r} ({unknown[0].image}), which it was not given: pass this "
                "question with its answers in `answered`."
            )
        generator = torch.Generator().manual_seed(self._seed)

        def draw(policy: Policy, encoded: Encoded, length: int) -> Decoded:
            return sample(policy, encoded, length, self._count, self._temperature, generator)

        groups = self._learned.decode(queries, allowed, shots, draw)
        asked = [self._examples[query] for query in queries for _ in range(self._count)]
        flat = [selection.examples for group in groups for selection in group]
        scores = iter(self._scorer.score_pointers(asked, flat, f"best of {self._count}"))
        found: list[list[Selection]] = [[] for _ in range(shots)]
        for group in groups:
            scored = [next(scores) for _ in group]
            for shot in range(1, shots + 1):
                accuracies = [score[shot - 1].vqa_acc_score for score in scored]
                best = group[accuracies.index(max(accuracies))]
                found[shot - 1].append(Selection(best.examples[:shot]))
        return found
