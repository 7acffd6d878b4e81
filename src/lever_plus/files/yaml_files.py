"""Reads and writes YAML: params.yaml, presets, the search space, the variants, dvc.yaml."""

import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from lever_plus.errors import UserError
from lever_plus.files.reading import read_text

LARGEST: Final = 4 * 2**20
"""Bytes of a file. Settings are written by hand: a larger file is not one of settings."""
DEEPEST: Final = 32
"""Levels of nesting."""
MOST: Final = 100_000
"""Values after aliases are resolved: aliases of aliases make thousands out of a few lines."""


def read_yaml(path: Path, advice: str, *, comments: bool = False) -> dict[str, Any]:
    """Return the settings of a YAML file, by name.

    Args:
        path: The file.
        advice: What to do if it is missing or can't be used.
        comments: Keep comments and order, for `dump_yaml`.

    Raises:
        UserError: It is missing or too large, is not YAML in UTF-8, does not map names to values,
            has a name twice, or holds NaN or an infinite number.
    """
    return parse_yaml(read_text(path, advice, limit=LARGEST), str(path), advice, comments=comments)


def parse_yaml(text: str, where: str, advice: str, *, comments: bool = False) -> dict[str, Any]:
    """Return the settings of a YAML text; arguments and errors as `read_yaml`."""
    yaml = YAML(typ="rt" if comments else "safe")
    yaml.preserve_quotes = True
    yaml.width = 4096
    try:
        content = yaml.load(text)
    except YAMLError as error:
        why = " ".join(str(error).split())
        raise UserError(f"{where} is not YAML ({why}): {advice}.") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply: {advice}.") from error
    # ruamel makes dates and numbers with Python's own functions, which raise all of these.
    except (ValueError, TypeError, AssertionError, AttributeError, KeyError, IndexError) as error:
        raise UserError(f"{where} is not YAML that can be used ({error}): {advice}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{where} does not map names to values: {advice}.")
    try:
        for count, _ in enumerate(_values(content, "", 0)):
            if count > MOST:
                raise ValueError(f"more than {MOST:,} values")
    except ValueError as error:
        raise UserError(f"{where}: {error}: {advice}.") from error
    return content


def dump_yaml(content: Any) -> str:
    """Return content as YAML; what `read_yaml` read with comments differs only in what changed."""
    yaml = YAML()
    yaml.Representer = _WithNull
    yaml.width = 4096
    stream = StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


class _WithNull(RoundTripRepresenter):
    """Writes null as `null`. A class of its own, because ruamel keeps representers per class."""


_WithNull.add_representer(
    type(None), lambda r, _none: r.represent_scalar("tag:yaml.org,2002:null", "null")
)


def _values(value: Any, place: str, depth: int) -> Iterator[Any]:
    """Yield all values; ValueError names a value that no setting can have, and its place."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for name, each in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{place}{name!r} is not a name (put it in quotes)")
            yield from _values(each, f"{place}{name}.", depth + 1)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _values(each, f"{place}{number}.", depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place.removesuffix('.')} is {value}, not a finite number")
    yield value
