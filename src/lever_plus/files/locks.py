"""Locks between processes: a file that one of them holds until it lets go or ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lever_plus.errors import UserError


@contextmanager
def locked(path: Path, busy: str, advice: str, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock during the block, so that no other process enters it with the same file.

    The kernel releases the lock when the process that holds it ends, however it ends.

    Args:
        path: The lock's file. It is made if it is missing, with its folder, and it is not removed.
        busy: The whole message of the error if another process holds the lock.
        advice: What to do if the file can't be made.
        seconds: How long to wait for the lock, in seconds.

    Raises:
        UserError: Another process still holds the lock, or the file can't be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # where no file can be made, FileLock would try for ever
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise UserError(busy) from error
    except OSError as error:
        raise UserError(f"{path} can't be made ({error.strerror or error}): {advice}.") from error
    try:
        yield
    finally:
        lock.release()
