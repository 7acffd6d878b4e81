"""Reading a file's bytes and text: whatever stands in the way is said by the file's name."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lever_plus.errors import UserError


def read_bytes(path: Path, advice: str, *, limit: int | None = None) -> bytes:
    """Return what a file holds.

    Args:
        path: A file; pipes, devices and folders are refused, they might never end.
        advice: What to do if it can't be read: "run `lever-plus prepare`".
        limit: Most bytes that such a file can have.

    Raises:
        UserError: The file is missing, is none, can't be read, or is larger than the limit.
    """
    check_file(path, advice)
    try:
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise UserError(f"{path} has {size:,} bytes, more than the {limit:,} it may: {advice}.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {advice}.") from error


def check_file(path: Path, advice: str) -> None:
    """Refuse what is no file; arguments and errors as `read_bytes`."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"{path} is missing: {advice}." if missing else f"{path}: {why}: {advice}."
        ) from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is no file: {advice}.")


def is_there(path: str | Path) -> bool:
    """Return whether there is a file or folder; what cannot be the name of one is not there."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def own_root() -> Path | None:
    """Return the project's own folder where DVC runs a command, which may be in a copy of it."""
    root = os.environ.get("DVC_ROOT")
    return Path(root) if root else None


def found_in(root: Path, name: str | Path) -> Path:
    """Return where a file or folder of the user's is that settings name relative to the project.

    DVC runs experiments in temporary copies of the project, which lack what git does not know: what
    is not in the copy is in the project's own folder.
    """
    here, own = root / name, own_root()
    try:
        return own / name if own is not None and not here.exists() else here
    except (OSError, ValueError):  # a name that no file can have: whoever opens it says so
        return here


def read_text(path: Path, advice: str, *, limit: int | None = None) -> str:
    """Return a file's text, which must be UTF-8 (with or without a byte-order mark).

    Arguments and errors as `read_bytes`.
    """
    return decoded(read_bytes(path, advice, limit=limit), str(path), advice)


def decoded(content: bytes, where: str, advice: str) -> str:
    """Return bytes as text; UserError that names the place if they are not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 (byte {error.start}): {advice}.") from error


def read_lines(path: Path, advice: str) -> Iterator[tuple[int, bytes]]:
    """Yield the numbers and bytes of a file's lines, one at a time; empty ones are left out.

    Only a line feed ends a line: texts may hold other line separators. Arguments and errors as
    `read_bytes`.
    """
    check_file(path, advice)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {advice}.") from error
