"""Checks what was read from a file against a model.

A mistake becomes one sentence that names the place, the field and the value.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

Checked = TypeVar("Checked")

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
"""How models of files are checked: nothing is converted, and unknown keys are refused."""


class Row(BaseModel):
    """Base of the models of this project's files: of a whole file, or of one of its lines."""

    model_config = STRICT


def checked(kind: type[Checked], content: Any, where: str, advice: str) -> Checked:
    """Return content that was read from JSON as a model, a dataclass, or any annotated type.

    Args:
        kind: The type that it must have. A `Row` converts nothing: "1" and true are not numbers.
        content: Objects, lists, texts and numbers, as JSON or YAML gives them. A list also fits
            where the type has a tuple.
        where: Where the content comes from, for the error: "FILE, line 3".
        advice: What to do if it does not fit, for the error.

    Raises:
        UserError: It does not fit; the place, the field and the value are named.
    """
    try:
        return cast(Checked, _adapter(cast(Hashable, kind)).validate_python(_with_tuples(content)))
    except ValidationError as error:
        raise UserError(f"{where}: {explained(error.errors()[0])}: {advice}.") from error


def explained(error: ErrorDetails, place: str | None = None) -> str:
    """Return what is wrong with one field: "answers.2: input should be a valid string, not 5".

    Args:
        error: One of pydantic's errors.
        place: Name of the field in the file, if its path in the model is another one.
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
    """Return the content with its lists as tuples: a strict model takes no list for a tuple."""
    if isinstance(content, dict):
        return {key: _with_tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(map(_with_tuples, content))
    return content
