"""Writing files whole or not at all: beside the old one, then in its place.

A full disk, a kill or a value that JSON has no word for leaves what was there before.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError

from lever_plus.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole: the block writes to the path that it gets, which then replaces `path`.

        with replacing(paths.scores) as fresh:
            scores.to_parquet(fresh)

    Folders that are missing are made. Whatever goes wrong in the block, `path` is as it was.

    Raises:
        UserError: The disk is full, or the folder can't be written to.
    """
    with replacing_all([path]) as (fresh,):
        yield fresh


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Write files that belong together: none is replaced before all are complete.

    Arguments and errors as `replacing`.
    """
    fresh = [_beside(path) for path in paths]
    try:
        try:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(path)
            yield fresh
            for made in fresh:
                with made.open("rb") as file:
                    os.fsync(file.fileno())
            for made, path in zip(fresh, paths, strict=True):
                made.replace(path)
        finally:
            for made in fresh:
                made.unlink(missing_ok=True)
    except (OSError, ValueError, SafetensorError) as error:
        if not _is_ours(error, [*paths, *fresh]):
            raise
        why = getattr(error, "strerror", None) or str(error)
        named = ", ".join(str(path) for path in paths)
        raise UserError(
            f"{named} can't be written ({why}); what was there before is as it was. Make room, or "
            "let this user write there, and run the command again."
        ) from error


def _is_ours(error: Exception, paths: Sequence[Path]) -> bool:
    """Return whether an error is about writing these files, not about what the block read."""
    if isinstance(error, (ConnectionError, TimeoutError)):  # of what the block asks meanwhile
        return False
    if isinstance(error, OSError):
        about = error.filename
        return about is None or any(Path(str(about)) in (p, p.parent, *p.parents) for p in paths)
    # A path with a null byte is a ValueError of Python's, a full disk an error of safetensors' own.
    return any(sign in str(error) for sign in ("null byte", "I/O error"))


def _beside(path: Path) -> Path:
    """Return a fresh name; its ending stays, because some libraries choose the format by it."""
    return path.with_name(f".{path.stem[:50]}.{os.getpid()}-{uuid4().hex[:8]}{path.suffix}")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left beside a file."""
    for left in path.parent.glob(f".{escape(path.stem[:50])}.*-????????{escape(path.suffix)}"):
        number = left.name.removesuffix(path.suffix).rpartition(".")[2].partition("-")[0]
        if number.isdecimal() and not _is_running(int(number)):
            left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with line feeds, whole or not at all; UserError as `replacing`."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes.

    Raises:
        UserError: As `replacing`.
        ValueError: A number is NaN or infinite.
    """
    text = json.dumps(content, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one object a line, with sorted keys; return how many. Errors as `write_json`."""
    count = 0
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            line = json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False)
            file.write(line + "\n")
            count += 1
    return count
