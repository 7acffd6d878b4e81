"""Reads JSON strictly.

Refused are NaN and infinite numbers, a key that an object has twice, lone surrogates (half a
character), and content that is nested too deeply for Python's parser.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from lever_plus.errors import UserError
from lever_plus.files.checking import checked
from lever_plus.files.reading import decoded, read_bytes, read_lines

Checked = TypeVar("Checked")


def read_json(path: Path, advice: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        advice: What to do if it can't be used: "run `dvc checkout`".

    Raises:
        UserError: The file is missing, can't be read, or is not strict JSON in UTF-8.
    """
    return parse_json(read_bytes(path, advice), str(path), advice)


def read_object(path: Path, advice: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Arguments and errors as `read_json`; UserError, too, if it holds something else.
    """
    content = read_json(path, advice)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: {advice}.")
    return content


def read_json_as(kind: type[Checked], path: Path, advice: str) -> Checked:
    """Return a JSON file's content as a model; UserError as `read_json` and `checked`."""
    return checked(kind, read_json(path, advice), str(path), advice)


def json_lines(path: Path, advice: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, content) of every line of a JSON-lines file, one at a time.

    The place, such as "FILE, line 3", is for errors about the content. Arguments and errors as
    `read_json`.
    """
    for number, line in read_lines(path, advice):
        where = f"{path}, line {number}"
        yield where, parse_json(line, where, advice)


def json_lines_as(kind: type[Checked], path: Path, advice: str) -> Iterator[Checked]:
    """Yield each line of a JSON-lines file as a model; UserError names the file and the line."""
    for where, content in json_lines(path, advice):
        yield checked(kind, content, where, advice)


def parse_json(content: bytes | str, where: str, advice: str) -> Any:
    """Return what a JSON text holds.

    Args:
        content: JSON, as text or as bytes in UTF-8.
        where: Where it comes from, for the error: a file, a line of it, a server's reply.
        advice: What to do if it can't be used.

    Raises:
        UserError: It is not JSON, is nested too deeply, or has NaN, an infinite number, a key twice
            in an object, or a lone surrogate.
    """
    text = decoded(content, where, advice) if isinstance(content, bytes) else content
    try:
        read = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite
        )
        if "\\ud" in text or "\\uD" in text or not isinstance(content, bytes):
            json.dumps(read, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        why = "a text has half a character (a lone surrogate)"
        raise UserError(f"{where}: {why}: {advice}.") from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply: {advice}.") from error
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}): {advice}.") from error
    return read


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is larger than any number")
    return number
