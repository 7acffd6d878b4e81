"""Locks between processes: a file that one of them holds, and that is free when it ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lever_plus.errors import UserError


@contextmanager
def locked(path: Path, busy: str, advice: str, seconds: float = 0.0) -> Iterator[None]:
    """Keep other processes out of the block that come with the same file.

    The kernel ends the lock with the process that holds it, however that ends.

    Args:
        path: The lock's file; it is made, with its folder, and stays.
        busy: What to say where another process has the lock.
        advice: What to do where the file can't be made.
        seconds: How long to wait for it.

    Raises:
        UserError: Another process has it, or the file can't be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # the lock would try for ever where no file can be made
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise UserError(busy) from error
    except OSError as error:
        raise UserError(f"{path} can't be made ({error.strerror or error}): {advice}.") from error
    try:
        yield
    finally:
        lock.release()
