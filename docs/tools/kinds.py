"""What a parameter may be, in words, by the JSON schema of the models."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tables import code

LARGE: Final = 1_000_000
"""From here on a bound only keeps what overflows out."""
LAST_SEED: Final = 2**32 - 1


def kind_of(each: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in each:
        inner = known[each["$ref"].rpartition("/")[2]]["properties"]
        return (
            "{"
            + ", ".join(f"{name}: {kind_of(value, known)}" for name, value in inner.items())
            + "}"
        )
    if "anyOf" in each:
        return _alternatives([kind_of(option, known) for option in each["anyOf"]])
    if "const" in each:
        return code(each["const"])
    if "enum" in each:
        return ", ".join(code(value) for value in each["enum"])
    return _WORDS[each["type"]](each, known)


def _alternatives(kinds: Sequence[str]) -> str:
    comma = any(", " in kind for kind in kinds)
    return ("; or " if comma else " or ").join(kinds)


def _number(name: str, each: Mapping[str, Any]) -> str:
    low = each.get("minimum")
    high = each.get("maximum", each.get("exclusiveMaximum"))
    if low is None or low <= -LARGE:
        return name
    if high is None or LARGE <= high != LAST_SEED:
        return f"{name}, {_figure(low)} or more"
    below = "below " if "exclusiveMaximum" in each else ""
    return f"{name}, {_figure(low)} to {below}{_figure(high)}"


def _figure(number: float) -> str:
    """Return a number as people write it: no exponent."""
    return f"{number:,.9f}".rstrip("0").rstrip(".")


def _list(each: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    few, many = each.get("minItems", 0), each.get("maxItems")
    count = f"{few} " if few and few == many else f"{few} or more " if few else ""
    return f"list of {count}({kind_of(each['items'], known)})"


def _mapping(each: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    values = each["additionalProperties"]
    names = each.get("propertyNames", {})
    key = kind_of(names, known) if "enum" in names else "name"
    return f"{{{key}: {kind_of(values, known)}}}"


_WORDS: Final = {
    "integer": lambda each, _: _number("whole number", each),
    "number": lambda each, _: _number("number", each),
    "boolean": lambda *_: "`true` or `false`",
    "null": lambda *_: "`null`",
    "string": lambda *_: "text",
    "array": _list,
    "object": _mapping,
}
