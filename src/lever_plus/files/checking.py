"""Checking what was read against a model: one sentence a mistake, with its place and the value."""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

Checked = TypeVar("Checked")

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
"""How models of files are checked: nothing is converted, and no key is unknown."""


class Row(BaseModel):
    """Base of what a file of ours holds: a line of it, or all."""

    model_config = STRICT


def checked(kind: type[Checked], content: Any, where: str, advice: str) -> Checked:
    """Return content that was read from JSON as a model, a dataclass, or any annotated type.

    Args:
        kind: What it must be; a `Row` converts nothing: "1" and true are no numbers.
        content: Objects, lists, texts, numbers, as JSON or YAML gives them; lists may be tuples of
            the model.
        where: "FILE, line 3", for the error.
        advice: What to do if it is something else.

    Raises:
        UserError: It is something else: place, field and value are named.
    """
    try:
        return cast(Checked, _adapter(cast(Hashable, kind)).validate_python(_with_tuples(content)))
    except ValidationError as error:
        raise UserError(f"{where}: {explained(error.errors()[0])}: {advice}.") from error


def explained(error: ErrorDetails, place: str | None = None) -> str:
    """Return what is wrong with one field: "answers.2: input should be a valid string, not 5".

    Args:
        error: One of pydantic's errors.
        place: Name of the field, where its path in the model is not the one in the file.
    """
    place = place or ".".join(map(str, error["loc"])) or "it"
    match error["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"unknown key {place}"
        case "value_error" | "assertion_error":
            return f"{place}: {error['msg'].partition(', ')[2]}"
    message = f"{place}: {error['msg'][:1].lower()}{error['msg'][1:]}"
    if error["type"].startswith("union_tag"):
        return message
    shown = without_secrets(repr(error["input"]))
    return f"{message}, not {shown if len(shown) <= 60 else shown[:57] + '...'}"


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _with_tuples(content: Any) -> Any:
    """Return lists as tuples: strict models of Python values take no list for a tuple."""
    if isinstance(content, dict):
        return {key: _with_tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(map(_with_tuples, content))
    return content
