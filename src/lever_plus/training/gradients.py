"""The gradient of a batch, in parts that are computed side by side.

A policy is small: two torch threads inside each of its operations mostly wait for each other, and
where another process takes a core they slow everything down. Whole parts of a batch in threads of
their own meet once a step. Parts are summed in their order, so results depend on how many there
are, but not on the machine's cores.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lever_plus.policy.dropout import masks_from


class Part(NamedTuple):
    """What some queries of a batch give: means over them. `loss` has a gradient."""

    loss: Tensor
    figures: dict[str, float]


PartOf = Callable[[Tensor], Part]
"""Computes a part from row numbers [n]."""


class Gradients:
    """Sets the gradient of parameters to that of a batch's mean loss."""

    def __init__(self, parameters: Iterable[nn.Parameter], parts: int) -> None:
        """Cut every batch into so many parts, where it has as many rows."""
        self._parameters, self._parts = [p for p in parameters if p.requires_grad], parts
        # In a new thread torch's number of threads holds only from when it is asked for.
        self._beside = (
            ThreadPoolExecutor(parts - 1, initializer=torch.get_num_threads) if parts > 1 else None
        )

    def of(
        self, rows: Tensor, part: PartOf, draws: torch.Generator | None = None
    ) -> dict[str, float]:
        """Set the gradients; return the means of loss and figures over the rows [n].

        A parameter that does not count gets none: Adam would take one of 0 for a quiet parameter,
        and its steps would be too large by far once it counts.

        Args:
            rows: Row numbers of the batch.
            part: Computes some of them.
            draws: Gives each part a generator of its own for the masks of dropout; None: none is
                needed.
        """
        shares = [some for some in rows.tensor_split(self._parts) if len(some)]
        masks = [_branch(draws) for _ in shares]
        work = [
            partial(self._one, some, part, len(some) / len(rows), generator)
            for some, generator in zip(shares, masks, strict=True)
        ]
        submitted = [self._beside.submit(other) for other in work[1:] if self._beside]
        found = [work[0]()]
        found += [other.result() for other in submitted]
        for parameter, *parts in zip(self._parameters, *(g for g, _ in found), strict=True):
            # Its own memory: gradients of a graph may be views, or the same for two parameters.
            summands = [gradient for gradient in parts if gradient is not None]
            start = torch.zeros_like(parameter)
            parameter.grad = sum(summands, start=start) if summands else None
        return {name: sum(figures[name] for _, figures in found) for name in found[0][1]}

    def _one(
        self, rows: Tensor, part: PartOf, share: float, masks: torch.Generator | None
    ) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        """Return gradients and figures of one part, weighted by its share of the batch."""
        with masks_from(masks):
            loss, figures = part(rows)
        gradients = torch.autograd.grad(share * loss, self._parameters, allow_unused=True)
        weighted = {"loss": loss.item(), **figures}
        return gradients, {name: share * value for name, value in weighted.items()}


def _branch(draws: torch.Generator | None) -> torch.Generator | None:
    """Return a generator whose seed another one draws."""
    if draws is None:
        return None
    seed = torch.randint(2**62, (), generator=draws)
    return torch.Generator().manual_seed(int(seed))
