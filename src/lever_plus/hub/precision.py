"""Computing in float32 for a while with a model of lower precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let a model in float16 or bfloat16 compute in float32 in this block.

    Afterwards every value is what it was: float32 holds all values of float16 and bfloat16. What is
    float32 already, such as rotary frequencies, is not touched.
    """
    values = chain(model.parameters(), model.buffers())
    short = [(v, v.dtype) for v in values if v.dtype in (torch.float16, torch.bfloat16)]
    try:
        for value, _ in short:
            value.data = value.data.float()
        yield
    finally:
        for value, dtype in short:
            value.data = value.data.to(dtype)
