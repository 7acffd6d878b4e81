"""Cutting a process off from MLflow in the middle of its work, as a kill would."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from lever_plus.tracking import store as stores


class Killed(BaseException):
    """Stands in for SIGKILL: no code of the program handles it."""


@contextmanager
def cut_off(calls: int) -> Iterator[None]:
    """End the block at its next call to MLflow after the given number of calls."""
    real, left = stores.ask, calls

    def cut(*given: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return real(*given, **named)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(stores, "ask", cut)
        yield
