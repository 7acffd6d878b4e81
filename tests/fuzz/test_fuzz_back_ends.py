"""A user's own back ends return anything: a sentence and nothing stored, or the right value."""

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doors import Bad, try_all

from lever_plus.data.examples import Query
from lever_plus.errors import UserError
from lever_plus.vlm.open import open_vlm
from lever_plus.vlm.prompt import PromptFormat
from lever_plus.vlm.request import Done, Request, VlmIdentity
from lever_plus.vlm.usage import Usage

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 0.5, -1.5, 10**400, float("nan"), float("inf"), float("-inf")),
    *("", "cat", b"cat", "\ud83d", "a\0b", [], ["cat"], ("cat",), {"answer": "cat"}, object()),
    *(np.float32(-0.5), np.float64(0.25), np.str_("cat"), np.array([1.0]), np.bool_(True), 1j),
)
PLACES = ("the VLM.answers", "the VLM.log_likelihoods", "the VLM's log-likelihood")


class Given:
    """A back end that reports and returns what it is told to."""

    def __init__(self, reported: Sequence[tuple[Any, Any]], returned: Any) -> None:
        """Keep it."""
        self.identity = VlmIdentity(
            model="own", revision="-", dtype="-", prompt_hash="-", generation="-"
        )
        self.prompt, self.usage = PromptFormat(), Usage()
        self._reported, self._returned = reported, returned

    def answers(self, _requests: Sequence[Request], done: Done[Any]) -> Any:
        for indices, values in self._reported:
            done(indices, values)
        return self._returned

    log_likelihoods = answers


def right(value: Any, kind: str) -> bool:
    """Return whether a value can be an answer, or a log-likelihood."""
    if kind == "text":
        return isinstance(value, str) and "\ud83d" not in value
    number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    return number and -1e30 < value <= 0


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., list[Any]]:
    """Ask two questions of a back end through a fresh part of a store; return what is stored."""
    counter = itertools.count()

    def ask(kind: str, back_end: Given) -> list[Any]:
        number = next(counter)
        back_end.identity["revision"] = str(number)
        vlm = open_vlm(back_end, store=tmp_path / "answers.sqlite")
        requests = [Request((), Query("a.png", f"q{n}", "hash"), "x") for n in range(2)]
        rows = "SELECT text, log_likelihood FROM answer JOIN vlm ON vlm.id = answer.vlm WHERE "
        rows += f'identity LIKE \'%"revision": "{number}"%\' OR identity LIKE \'%:"{number}"%\''
        assert vlm._store is not None
        try:
            found = vlm.answers(requests) if kind == "text" else vlm.log_likelihoods(requests)
        except UserError:
            kept = vlm._store._connection.execute(rows).fetchall()
            assert all(right(text if kind == "text" else number, kind) for text, number in kept)
            assert len(kept) <= 1
            raise
        (statistics,) = [
            each for each in vlm._store.statistics() if each.identity["revision"] == str(number)
        ]
        assert statistics.answers + statistics.log_likelihoods == 2
        return list(found)

    return ask


def test_back_ends_of_the_user_s_own(stored: Callable[..., list[Any]]) -> None:
    def bad(name: str, kind: str, reported: Sequence[tuple[Any, Any]], returned: Any) -> Bad:
        def run() -> None:
            found = stored(kind, Given(reported, returned))
            assert len(returned) == len(found) == 2
            for value, given in zip(found, returned, strict=True):
                assert right(given, kind)
                assert value == (given.strip() if kind == "text" else pytest.approx(float(given)))

        return Bad(f"{kind}: {name}", run, PLACES)

    inputs = []
    for kind, good in (("text", "dog"), ("number", -1.0)):
        for value in VALUES:
            shown = f"{value!r:.30}"
            inputs += [
                bad(f"returned {shown}", kind, [], [good, value]),
                bad(f"reported {shown}", kind, [([0], [value])], [value, good]),
                bad(f"returned {shown} alone", kind, [], value),
                bad(f"numbered {shown}", kind, [([value], [good])], [good, good]),
                bad(f"numbers {shown}", kind, [(value, [good])], [good, good]),
                bad(f"another than reported {shown}", kind, [([0], [good])], [value, good]),
            ]
        for numbers in ([-1], [2], [0, 0], [0, 1, 2], [10**30], ["0"], [0.0], []):
            for count in (0, 1, 2):
                name = f"{count} values for {numbers}"
                inputs.append(bad(name, kind, [(numbers, [good] * count)], [good, good]))
        inputs.append(bad("twice", kind, [([0], [good]), ([0], [good])], [good, good]))
        inputs += [bad(f"{n} of 2", kind, [], [good] * n) for n in (0, 1, 3)]
    random.Random(1).shuffle(inputs)
    try_all("back ends of one's own", inputs)
