"""Reads params.yaml and merges presets into it.

A mistyped key is an error with a suggestion, and so is a text in place of a number. YAML reads
`1e-4` as a text: write `1.0e-4`.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from lever_plus.config.params import Params
from lever_plus.config.reward import SHARED, given_as
from lever_plus.errors import UserError
from lever_plus.files.checking import explained
from lever_plus.files.writing import write_text
from lever_plus.files.yaml_files import dump_yaml, parse_yaml, read_yaml

PARAMS_ADVICE: Final = (
    "run from the project's root folder, where it is; docs/reference/params.md explains it"
)
PRESET_ADVICE: Final = "see presets/"
TABLES = {"options", "samples", "stochastic_beam", "targets", "tau"}
"""Settings that map names to values: a preset replaces them whole instead of merging into them."""


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: The file is missing, is not YAML, or holds an unknown key or a wrong value.
    """
    return _validated(read_yaml(path, PARAMS_ADVICE), str(path))


def load_with_preset(path: Path, preset: Path) -> Params:
    """Return the params that a file and a preset merged into it give; nothing is written.

    Raises:
        UserError: A file is missing, or the result would not be valid.
    """
    return _merged(path, preset)[1]


def overlay(path: Path, preset: Path) -> None:
    """Merge a preset into a params file in place, keeping the comments of the file.

    Raises:
        UserError: A file is missing, or the result would not be valid (nothing is written).
    """
    write_text(path, _merged(path, preset)[0])


def merged_params(path: Path, preset: Path | None, changes: Mapping[str, Any]) -> Params:
    """Return the params that a file, a preset and further changes give, merged in this order.

    Raises:
        UserError: A file is missing, or the result would not be valid.
    """
    content = read_yaml(path, PARAMS_ADVICE)
    if preset:
        _merge(content, read_yaml(preset, PRESET_ADVICE))
    _merge(content, changes)
    return _validated(content, "the changes")


def changed_params(params: Params, changes: Mapping[str, Any]) -> Params:
    """Return params with changes merged into them; UserError if the result is not valid."""
    content = params.model_dump()
    _merge(content, changes)
    return _validated(content, "the changes")


def _merged(path: Path, preset: Path) -> tuple[str, Params]:
    content = read_yaml(path, PARAMS_ADVICE, comments=True)
    _merge(content, read_yaml(preset, PRESET_ADVICE))
    text = dump_yaml(content)
    return text, _validated(parse_yaml(text, str(preset), PRESET_ADVICE), str(preset))


def _validated(content: Any, origin: str) -> Params:
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{origin}: " + _explain_all(error, content) + ".") from error


def _merge(target: Any, changes: Any) -> None:
    """Merge nested settings in place.

    A section of another `kind` replaces the old one with all its keys. So does a reward that is
    given in another way (see `given_as`), except for the settings that every reward has.
    """
    for key, value in changes.items():
        before = target.get(key)
        sections = isinstance(value, dict) and isinstance(before, dict) and key not in TABLES
        if sections and _form(key, value) in (None, _form(key, before)):
            _merge(before, value)
        elif sections and key == "reward":
            target[key] = {**{k: before[k] for k in SHARED if k in before}, **value}
        else:
            target[key] = _styled(value, before) if isinstance(target, CommentedMap) else value


def _form(key: str, section: Mapping[str, Any]) -> object:
    """Return what decides which keys a section has: its kind, or how a reward is given."""
    return given_as(section) if key == "reward" else section.get("kind")


def _styled(value: Any, before: Any) -> Any:
    """Return a value in the style of the old one: in its order of keys, on one line or several."""
    if isinstance(value, list):
        values = CommentedSeq(value)
        if not isinstance(before, CommentedSeq) or not before or before.fa.flow_style():
            values.fa.set_flow_style()
        return values
    if isinstance(value, dict) and isinstance(before, CommentedMap):
        keys = [
            *(key for key in before if key in value),
            *(key for key in value if key not in before),
        ]
        settings = CommentedMap((key, _styled(value[key], before.get(key))) for key in keys)
        if before.fa.flow_style():
            settings.fa.set_flow_style()
        return settings
    return value


def _explain_all(error: ValidationError, content: Any) -> str:
    return "; ".join(_explain(each, _place(each["loc"], content)) for each in error.errors())


def _place(loc: tuple[int | str, ...], content: Any) -> str:
    """Return the place of an error in the file: pydantic's, without the kinds of sections in it."""
    names: list[str] = []
    for part in loc:
        if isinstance(content, dict) and part == content.get("kind"):
            continue
        names.append(str(part))
        content = content.get(part) if isinstance(content, dict) else None
    return ".".join(names) or "params"


def _explain(error: ErrorDetails, place: str) -> str:
    """Turn a pydantic error into one sentence with a suggestion."""
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown key {place}" + (f" (did you mean {near[0]}?)" if near else "")
    if error["type"] in ("float_type", "int_type") and isinstance(error["input"], str):
        return f"{place} is the text {error['input']!r}, not a number (write 1.0e-4, not 1e-4)"
    return explained(error, place)


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys of a section; if it has several kinds, those of the kind in the path."""
    models: list[Any] = [Params]
    for part in path:
        fields = [getattr(model, "model_fields", {}).get(part) for model in models]
        found = [field.annotation for field in fields if field]
        # In a path, the kind of a section comes after the section's key and before its fields'.
        models = [m for annotation in found for m in _members(annotation)] or models
    return [key for model in models for key in getattr(model, "model_fields", {})]


def _members(annotation: Any) -> list[Any]:
    parts = [member for part in get_args(annotation) for member in _members(part)]
    return parts or [annotation]
