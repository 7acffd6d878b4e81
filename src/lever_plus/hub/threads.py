"""The number of torch's threads, which is set here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_threads(count: int) -> None:
    """Let torch use `count` threads in this process from now on."""
    torch.set_num_threads(count)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads in this block, and as many as before after it."""
    before = torch.get_num_threads()
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)
