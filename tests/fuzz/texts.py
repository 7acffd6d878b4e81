"""Damaged texts for fuzzing: bytes that were changed, values of other kinds."""

import copy
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1.5, 10**40, -(2**63), "", " ", "1", "nan", "x" * 5_000),
    *("a\0b", "\u2028", "../../x", "/etc/passwd", [], [[]], {}, {"a": None}, [None, 1, "a"]),
)
"""Values that are bad for most fields."""


def json_lines(rows: Iterable[Any]) -> bytes:
    """Return one value a line, as JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def damaged(content: bytes, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes): texts cut off, changed, doubled, in another encoding."""
    for number in range(count):
        at = rng.randrange(len(content))
        end = min(len(content), at + rng.randrange(1, 40))
        match number % 7:
            case 0:
                yield f"cut off at byte {at}", content[:at]
            case 1:
                noise = rng.randbytes(end - at)
                yield f"bytes {at}-{end} are noise", content[:at] + noise + content[end:]
            case 2:
                yield f"bytes {at}-{end} are missing", content[:at] + content[end:]
            case 3:
                yield f"bytes {at}-{end} are twice there", content[:end] + content[at:]
            case 4:
                sign = rng.choice(b'{}[]",:\n\0\xff0aE-')
                yield f"byte {at} is {sign}", content[:at] + bytes([sign]) + content[at + 1 :]
            case 5:
                text = content.decode("utf-8", "replace")
                encoding = rng.choice(("utf-16", "utf-32", "utf-7"))
                yield f"in {encoding}", text.encode(encoding)
            case _:
                yield f"starts at byte {at}", content[at:]


def changed(content: Any, rng: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    """Yield (what was done, content): one value replaced, left out, or under another name.

    Args:
        content: Objects, lists, texts and numbers, as JSON gives them; it is not changed.
        rng: Chooses places and values.
        count: How many to yield.
    """
    places = list(_places(content))
    for _ in range(count):
        fresh = copy.deepcopy(content)
        *way, last = rng.choice(places)
        holder = fresh
        for key in way:
            holder = holder[key]
        place = ".".join(map(str, (*way, last)))
        match rng.randrange(4):
            case 0 if isinstance(holder, dict):
                del holder[last]
                yield f"{place} is missing", fresh
            case 1 if isinstance(holder, dict):
                holder[f"{last}_"] = holder.pop(last)
                yield f"{place} has another name", fresh
            case _:
                value = rng.choice([value for value in VALUES if value != holder[last]])
                holder[last] = copy.deepcopy(value)
                yield f"{place} is {json.dumps(value)[:40]}", fresh


def _places(content: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*way, key)
        if isinstance(value, dict | list) and value:
            yield from _places(value, (*way, key))
