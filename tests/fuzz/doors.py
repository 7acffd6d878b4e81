"""Fuzzing a door: each of many bad inputs must be refused in a sentence or be provably fine.

A door is a function that takes input from outside. Every try starts from the same seed, so that a
failure can be repeated; the counts of all doors are printed at the end of the tests.
"""

import hashlib
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bad_inputs import COUNTS
from lever_plus.errors import UserError

SECONDS = 20


class HangError(BaseException):
    """No answer came in time. Not an Exception or OSError: a door might catch those."""


@dataclass(frozen=True)
class Bad:
    """A bad input, which a door must refuse or take without harm.

    Attributes:
        name: What is bad about it, for a failure's message.
        run: Gives the input to the door. It raises UserError, or returns after it asserted that the
            input was taken rightly.
        places: Texts of which the sentence must have at least one: a file's name, a line, an id.
    """

    name: str
    run: Callable[[], None]
    places: tuple[str, ...]


def try_all(door: str, inputs: Iterable[Bad], untouched: Path | None = None) -> Counter[str]:
    """Give a door all inputs and return what became of them.

    Args:
        door: Its name, in the table of counts.
        inputs: At least 100 of them.
        untouched: A folder in which nothing may change: what is stored, and neighbours of the
            door's own folder.

    Raises:
        AssertionError: An input ended otherwise; all that did are listed.
    """
    counts = COUNTS.setdefault(door, Counter())
    before = _contents(untouched)
    wrong = []
    for bad in inputs:
        counts["tried"] += 1
        try:
            with _limited():
                bad.run()
            counts["fine"] += 1
        except UserError as error:
            counts["refused"] += 1
            text = str(error)
            if len(text.split()) < 3 or not any(place in text for place in bad.places):
                wrong.append(f"{bad.name}: names none of {bad.places}: {text!r}")
        except (Exception, HangError) as error:
            wrong.append(f"{bad.name}: {type(error).__name__}: {error}")
    assert counts["tried"] >= 100, f"{door}: only {counts['tried']} inputs"
    assert not wrong, f"{door}: {len(wrong)} of {counts['tried']}:\n" + "\n".join(wrong[:20])
    assert _contents(untouched) == before, f"{door}: something else was written to"
    return counts


@contextmanager
def _limited() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise HangError(f"no answer within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _contents(folder: Path | None) -> Mapping[str, str]:
    files = [] if folder is None else [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
