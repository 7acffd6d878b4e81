"""Dropout whose masks come from a generator that belongs to a part of the batch.

torch's own dropout draws from one generator for all threads. If parts of a batch are computed in
parallel, their masks would depend on which thread comes first, and no training could be repeated
exactly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import torch
from torch import Tensor, nn

_GENERATOR: Final[ContextVar[torch.Generator | None]] = ContextVar("generator", default=None)


@contextmanager
def masks_from(generator: torch.Generator | None) -> Iterator[None]:
    """Draw all masks of this thread from a generator in this block; None: from torch's own."""
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)


def dropped(values: Tensor, rate: float) -> Tensor:
    """Return values, of which a share `rate` is set to 0; others are divided by (1 - rate)."""
    if rate == 0:
        return values
    # Uniform numbers are drawn three times as fast as Bernoulli's.
    drawn = torch.rand(values.shape, generator=_GENERATOR.get(), device=values.device)
    return values * ((drawn >= rate) / (1 - rate))


class Dropout(nn.Module):
    """Sets a share `rate` of the values to 0 in training mode."""

    def __init__(self, rate: float) -> None:
        """Keep the rate, in [0, 1)."""
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, some of them 0 in training mode."""
        return dropped(values, self.rate) if self.training else values
