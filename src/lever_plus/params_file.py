"""Reads params.yaml and merges presets into it.

Numbers must be numbers (PyYAML reads `1e-4` as text: write `1.0e-4`), and a mistyped key stops the
run with a suggestion.
"""

import difflib
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lever_plus.errors import UserError
from lever_plus.params import Params


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: The file is missing, is not YAML, or holds an unknown key or a wrong value.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run from the project's root folder.")
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(map(_explain, error.errors())) + ".") from error


def overlay(path: Path, preset: Path) -> None:
    """Merge a preset into a params file in place, keeping the comments of the file.

    Raises:
        UserError: The preset is missing, or the result would not be valid (nothing is written).
    """
    if not preset.is_file():
        raise UserError(f"{preset} is missing: presets lie in presets/.")
    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    _merge(content, YAML(typ="safe").load(preset.read_text(encoding="utf-8")))
    try:
        Params.model_validate(YAML(typ="safe").load(_dump(yaml, content)))
    except ValidationError as error:
        raise UserError(f"{preset}: " + "; ".join(map(_explain, error.errors())) + ".") from error
    path.write_text(_dump(yaml, content), encoding="utf-8", newline="\n")


def _dump(yaml: YAML, content: Any) -> str:
    stream = StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def _merge(target: Any, changes: Any) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict) and key != "samples":
            _merge(target[key], value)
        else:
            target[key] = value


def _explain(error: ErrorDetails) -> str:
    """Turn a pydantic error into one sentence with a suggestion."""
    place = ".".join(map(str, error["loc"])) or "params"
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown key {place}" + (f" (did you mean {near[0]}?)" if near else "")
    if error["type"] in ("float_type", "int_type") and isinstance(error["input"], str):
        return f"{place} is the text {error['input']!r}, not a number (write 1.0e-4, not 1e-4)"
    return f"{place}: {error['msg'].removeprefix('Value error, ').lower()}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Params
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return list(getattr(model, "model_fields", {}))
