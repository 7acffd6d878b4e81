"""Reads a file's bytes and text; an error names the file and says why it can't be read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lever_plus.errors import UserError


def read_bytes(path: Path, advice: str, *, limit: int | None = None) -> bytes:
    """Return what a file holds.

    Args:
        path: A file. Folders are refused, and so are pipes and devices, which might never end.
        advice: What to do if it can't be read: "run `lever-plus prepare`".
        limit: The largest size in bytes that such a file may have; None: any.

    Raises:
        UserError: The file is missing, is not a regular file, can't be read, or is larger than the
            limit.
    """
    check_file(path, advice)
    try:
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise UserError(
                f"{path} has {size:,} bytes, more than the {limit:,} that are allowed: {advice}."
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {advice}.") from error


def check_file(path: Path, advice: str) -> None:
    """Refuse a path that is not a regular file; arguments and errors as `read_bytes`."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"{path} is missing: {advice}." if missing else f"{path}: {why}: {advice}."
        ) from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a file: {advice}.")


def is_there(path: str | Path) -> bool:
    """Return whether there is a file or folder; False, too, for a text that cannot be its name."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def own_root() -> Path | None:
    """Return the project's own folder if DVC runs this command (maybe in a copy), else None."""
    root = os.environ.get("DVC_ROOT")
    return Path(root) if root else None


def found_in(root: Path, name: str | Path) -> Path:
    """Return the path of a user's file or folder that settings name relative to the project.

    DVC runs experiments in temporary copies of the project, which lack what git does not track.
    What the copy lacks is taken from the project's own folder.
    """
    here, own = root / name, own_root()
    try:
        return own / name if own is not None and not here.exists() else here
    except (OSError, ValueError):  # no file can have this name: opening it will say so
        return here


def read_text(path: Path, advice: str, *, limit: int | None = None) -> str:
    """Return a file's text, which must be UTF-8 (with or without a byte-order mark).

    Arguments and errors as `read_bytes`.
    """
    return decoded(read_bytes(path, advice, limit=limit), str(path), advice)


def decoded(content: bytes, where: str, advice: str) -> str:
    """Return bytes as text; UserError names the place if they are not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start}): {advice}.") from error


def read_lines(path: Path, advice: str) -> Iterator[tuple[int, bytes]]:
    """Yield the number (from 1) and the bytes of each line of a file that is not empty.

    Only a line feed ends a line: texts may hold other line separators. Errors as `read_bytes`.
    """
    check_file(path, advice)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {advice}.") from error
