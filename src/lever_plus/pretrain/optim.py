"""What the training of both tiny models shares: the schedule, and data made ahead."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order, the next one being made in a thread meanwhile.

    Making a batch is Python, training on it is not: they overlap.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = maker.submit(next, iterator, end)
            yield item  # type: ignore[misc]


def warmup_cosine(
    optimizer: torch.optim.Optimizer, steps: int, warmup: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule: linear warm-up over `warmup` steps, then cosine to zero at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
