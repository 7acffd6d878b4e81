"""Why a policy picked what it picked: the probabilities at every step, and where it stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lever_plus.data.examples import Example, Query
from lever_plus.policy.decoding import Decoded, greedy, until_stop
from lever_plus.policy.network import Encoded, Policy
from lever_plus.selectors.base import allowed_pools
from lever_plus.selectors.learned import LearnedSelector

TOP: Final = 4
"""How many candidates of a step are named: the picked one, and the most probable others."""


class Candidate(NamedTuple):
    """An example that could be picked, and its probability."""

    example: Example
    probability: float


class Step(NamedTuple):
    """The policy's probabilities before one pick.

    Attributes:
        top: The picked candidate, then the most probable others.
        choices: Number of candidates that could be picked.
        stop: Probability of stopping instead; None if the policy does not decide that.
    """

    top: tuple[Candidate, ...]
    choices: int
    stop: float | None = None

    @property
    def picked(self) -> Candidate:
        """The candidate that was picked, or would have been if the policy had not stopped."""
        return self.top[0]

    @property
    def others(self) -> float:
        """Probability of all candidates that are not in `top`."""
        return max(0.0, 1 - sum(candidate.probability for candidate in self.top))


@dataclass(frozen=True, slots=True)
class Why:
    """What a policy picked, and why.

    Attributes:
        examples: The picked examples, in the order in which they are shown.
        steps: A step for each of them, and the step at which the policy stopped, if it did.
    """

    examples: tuple[Example, ...]
    steps: tuple[Step, ...]

    @property
    def stopped(self) -> Step | None:
        """The step at which the policy stopped; None if it showed as many as it was asked for."""
        return self.steps[-1] if len(self.steps) > len(self.examples) else None


def explain(selector: LearnedSelector, query: Query, pool: Sequence[Example], shots: int) -> Why:
    """Return what a selector picks for a query, with the probabilities at every step.

    Args:
        selector: The selector; with a price, it may stop.
        query: The query.
        pool: Examples to pick from; those with the query's image are left out.
        shots: Most examples that it picks.

    Raises:
        UserError: The pool is too small, an image can't be opened, or the selector can't pick as
            many.
    """
    asked, pools = allowed_pools([query], [pool], shots)
    seen: list[tuple[Tensor, Tensor, list[float | None]]] = []

    def decode(policy: Policy, encoded: Encoded, count: int) -> Decoded:
        whole = greedy(policy, encoded, count)
        log_probs = policy.steps(encoded, whole.pointers).joined()
        stops: list[float | None] = [None] * count
        decoded = whole
        if selector.price is not None:
            prices = torch.full((len(whole.pointers),), selector.price)
            odds = policy.stop_log_odds(encoded, whole.pointers, log_probs, prices)
            stops = torch.sigmoid(odds[0, 0]).tolist()
            decoded = until_stop(policy, encoded, whole, selector.price)
        seen.append((whole.pointers[0, 0], log_probs[0, 0], stops))
        return decoded

    ((selection,),) = selector.decode(asked, pools, shots, decode)
    ((pointer, log_probs, stops),) = seen
    steps = [
        _step(pools[0], int(pick), row, stop)
        for pick, row, stop in zip(pointer, log_probs, stops, strict=True)
    ]
    return Why(selection.examples, tuple(steps[: len(selection.examples) + selector.stops]))


def _step(pool: Sequence[Example], pick: int, log_probs: Tensor, stop: float | None) -> Step:
    """Return a step: the pick, then the most probable others."""
    choices = int((log_probs > -torch.inf).sum())
    order = [i for i in log_probs.argsort(descending=True, stable=True).tolist() if i != pick]
    named = [pick, *order][: min(TOP, choices)]
    top = tuple(Candidate(pool[i], float(log_probs[i].exp())) for i in named)
    return Step(top, choices, stop)
