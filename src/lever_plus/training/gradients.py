"""The gradient of a batch, from parts that are computed in parallel.

A policy is small: if torch uses two threads inside each operation, they mostly wait for each other,
and they slow everything down when another process needs a core. Here each thread computes a whole
part of the batch, and the threads wait for each other only once per step. The parts are summed in
a fixed order, so results depend on the number of parts, but not on the machine's cores.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lever_plus.policy.dropout import masks_from


class Part(NamedTuple):
    """Loss and figures of some queries of a batch, as means over them; `loss` has a gradient."""

    loss: Tensor
    figures: dict[str, float]


PartOf = Callable[[Tensor], Part]
"""Computes a part from row numbers [n]."""


class Gradients:
    """Sets the gradient of parameters to that of a batch's mean loss."""

    def __init__(self, parameters: Iterable[nn.Parameter], parts: int) -> None:
        """Cut every batch into `parts` parts, or into fewer if it has fewer rows."""
        self._parameters, self._parts = [p for p in parameters if p.requires_grad], parts
        # A new thread takes over torch's number of threads only when it asks for that number.
        self._beside = (
            ThreadPoolExecutor(parts - 1, initializer=torch.get_num_threads) if parts > 1 else None
        )

    def of(
        self, rows: Tensor, part: PartOf, draws: torch.Generator | None = None
    ) -> dict[str, float]:
        """Set the gradients; return the means of loss and figures over the rows [n].

        A parameter that the loss does not use gets the gradient None, not 0: zeros would shrink
        Adam's running means, and its first steps with a real gradient would be far too large.

        Args:
            rows: Row numbers of the batch.
            part: Computes loss and figures of some of the rows.
            draws: Seeds a separate generator of dropout masks for each part; None if there is no
                dropout.
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
            # Summed into new memory: autograd may return views, or one tensor for two parameters.
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
    """Return a generator with a seed that `draws` draws; None without `draws`."""
    if draws is None:
        return None
    seed = torch.randint(2**62, (), generator=draws)
    return torch.Generator().manual_seed(int(seed))
