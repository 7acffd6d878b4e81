"""Writes files and folders whole or not at all: first beside the old one, then in its place.

After a full disk, a kill, or a value that JSON cannot hold, what was there before is still there.
"""

import json
import os
import shutil
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
    """Write a file whole: the block writes a fresh file beside `path`, which then replaces it.

        with replacing(paths.scores) as fresh:
            scores.to_parquet(fresh)

    Missing folders are made. If anything goes wrong in the block, `path` is as it was.

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
        raise _refused(error, paths) from error


@contextmanager
def replacing_folders(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Write folders that belong together: the block fills an empty, fresh folder for each path.

    They replace the old folders when all are complete. If the process is killed at that moment, a
    folder may be missing, with its old content beside it under another name; it is never a mixture
    of old and new.

    Raises:
        UserError: The disk is full, or the folders can't be written to.
    """
    fresh, old = ([_beside(path) for path in paths] for _ in range(2))
    try:
        try:
            for made, path in zip(fresh, paths, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(path)
                made.mkdir()
            yield fresh
            for path, aside in zip(paths, old, strict=True):
                if path.exists() or path.is_symlink():
                    path.rename(aside)
            for made, path in zip(fresh, paths, strict=True):
                made.rename(path)
        finally:
            for path, aside in zip(paths, old, strict=True):
                if not path.exists() and aside.exists():
                    aside.rename(path)
            for left in (*fresh, *old):
                _remove(left)
    except UserError as error:
        said = str(error)
        for made, path in zip(fresh, paths, strict=True):
            said = said.replace(str(made), str(path))  # the fresh folders are gone by then
        if said == str(error):
            raise
        raise type(error)(said) from error
    # For a full disk, tokenizers raise a plain Exception, so every kind must be looked at.
    except Exception as error:
        if not _is_ours(error, [*paths, *fresh], inside=True):
            raise
        raise _refused(error, paths) from error


def _refused(error: Exception, paths: Sequence[Path]) -> UserError:
    why = getattr(error, "strerror", None) or str(error)
    named = ", ".join(str(path) for path in paths)
    return UserError(
        f"{named} can't be written ({why}); what was there before is unchanged. Free some space, "
        "or allow this user to write there, and run the command again."
    )


def _is_ours(error: Exception, paths: Sequence[Path], *, inside: bool = False) -> bool:
    """Return whether an error is about writing these files, not about what the block read.

    Args:
        error: What was raised.
        paths: What is written.
        inside: The paths are folders, whose content is written too.
    """
    if isinstance(error, (ConnectionError, TimeoutError)):  # of a server that the block asks
        return False
    if isinstance(error, OSError):
        about = error.filename
        if about is None:
            return True
        there = Path(str(about))
        within = inside and any(there.is_relative_to(path) for path in paths)
        return within or any(there in (path, *path.parents) for path in paths)
    # For a null byte in a path, Python raises a ValueError; for a full disk, safetensors raises an
    # error of its own.
    return any(sign in str(error) for sign in ("null byte", "I/O error", "(os error "))


def _beside(path: Path) -> Path:
    """Return a fresh name with the same suffix, by which some libraries choose the format."""
    return path.with_name(f".{path.stem[:50]}.{os.getpid()}-{uuid4().hex[:8]}{path.suffix}")


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that were killed left beside a file."""
    for left in path.parent.glob(f".{escape(path.stem[:50])}.*-????????{escape(path.suffix)}"):
        number = left.name.removesuffix(path.suffix).rpartition(".")[2].partition("-")[0]
        if number.isdecimal() and not _is_running(int(number)):
            _remove(left)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
    """Write one object per line, with sorted keys; return how many. Errors as `write_json`."""
    count = 0
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            line = json.dumps(row, sort_keys=True, allow_nan=False, ensure_ascii=False)
            file.write(line + "\n")
            count += 1
    return count
