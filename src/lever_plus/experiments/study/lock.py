"""The lock of a study's journal: a killed process does not keep it, and waiting for it is logged.

There are two locks, one inside the other. The outer one is a kernel lock on a file next to the
journal; it ends with its process. The inner one is a link, the lock that Optuna's own programs and
other machines use. The holder of the outer lock writes into its file which link it made, so that
the link of a process that is gone can be removed at once. Any other link is respected for as long
as Optuna respects it.
"""

import errno
import fcntl
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.tracking.makers import is_gone, name_process

LOG = logging.getLogger("lever_plus")
GRACE_S: Final = 30.0
"""Seconds after which Optuna removes a link that nobody renews."""
QUIET_S: Final = 2.0
SAY_EVERY_S: Final = 10.0
LONGEST_PAUSE_S: Final = 0.25
LONGEST_NAME: Final = 1024
"""Size in bytes of the file that names the holder."""
Link = tuple[int, int]
"""Identifies a link among others of the same name: its inode and its modification time in ns."""


class JournalLock:
    """Excludes all other writers of a journal, including those on other machines."""

    def __init__(self, journal: Path, grace_s: float = GRACE_S) -> None:
        """Lock nothing yet.

        Args:
            journal: The journal as an absolute path; the link points to it.
            grace_s: How many seconds an unknown holder may keep the lock.
        """
        self._journal, self._grace_s = journal, grace_s
        self._link = journal.with_name(f"{journal.name}.lock")
        self._fresh = journal.with_name(f"{journal.name}.lock-next")
        self._holder = journal.with_name(f"{journal.name}.holder")
        self._file: int | None = None
        self._mine: Link | None = None

    def acquire(self) -> None:
        """Wait for the lock and take it.

        Raises:
            UserError: The folder of the journal can't be written to.
        """
        try:
            self._lock_file()
            self._make_link()
        except OSError as error:
            self._unlock_file()
            place = error.filename2 or error.filename or self._link
            raise UserError(
                f"{place} can't be made ({error.strerror}), so nothing was added to the "
                "journal: let this user write there, or name another storage in "
                "search/params.yaml."
            ) from error
        except BaseException:
            self._unlock_file()
            raise

    def release(self) -> None:
        """Release the lock, unless others removed it because this process had stopped too long."""
        if self._mine is not None and _identity(self._link) == self._mine:
            self._link.unlink(missing_ok=True)
        self._mine = None
        self._unlock_file()

    def _lock_file(self) -> None:
        """Take the kernel's lock; continue without it if locking fails or its holder hangs."""
        file = os.open(self._holder, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        waiting = _Waiting(self._journal, self._grace_s)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                busy = error.errno in (errno.EWOULDBLOCK, errno.EACCES)
                if busy and waiting.goes_on(_described(_read(file))):
                    continue
                os.close(file)
                return
            self._file = file
            return

    def _unlock_file(self) -> None:
        if self._file is not None:
            os.close(self._file)  # ends the lock too
            self._file = None

    def _make_link(self) -> None:
        waiting, worker = _Waiting(self._journal, self._grace_s), name_process()
        before = {} if self._file is None else _read(self._file)
        # Made under another name first, so that its holder is known before it becomes the lock.
        self._fresh.unlink(missing_ok=True)
        self._fresh.symlink_to(self._journal)
        try:
            while True:
                found = _identity(self._link)
                if found is None and self._take_link(worker):
                    return
                if found is None:
                    continue
                waiting.see(found)
                known = before.get("link") == list(found)
                gone = known and is_gone(before.get("worker"))
                if gone or not waiting.goes_on(_described(before if known else {})):
                    LOG.warning("%s was left by a process that is gone; removed it", self._link)
                    if _identity(self._link) == found:
                        self._link.unlink(missing_ok=True)
        finally:
            self._fresh.unlink(missing_ok=True)

    def _take_link(self, worker: dict[str, Any]) -> bool:
        """Turn the prepared link into the lock; return False if another process was faster."""
        mine = _identity(self._fresh)
        if mine is None:  # a worker on another machine removed it
            self._fresh.symlink_to(self._journal)
            return False
        if self._file is not None:
            _write(self._file, {"worker": worker, "link": list(mine)})
        try:
            os.link(self._fresh, self._link, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError:  # the file system has no hard links to symbolic links
            try:
                self._link.symlink_to(self._journal)
            except FileExistsError:
                return False
            mine = _identity(self._link)
        self._mine = mine
        return True


class _Waiting:
    """Pauses, and logs from time to time what it waits for and how long it may take."""

    def __init__(self, journal: Path, longest_s: float) -> None:
        self._journal, self._longest_s, self._pause = journal, longest_s, 0.001
        self._since = time.monotonic()
        self._say_at = self._since + QUIET_S
        self._seen: Link | None = None

    def see(self, link: Link) -> None:
        """Restart the clock if the lock has a new holder."""
        if link != self._seen:
            self._seen, self._since = link, time.monotonic()

    def goes_on(self, holder: str) -> bool:
        """Pause; return False once the same holder has had the lock for too long."""
        now = time.monotonic()
        left = self._since + self._longest_s - now
        if left <= 0:
            return False
        if now >= self._say_at:
            LOG.warning(
                "%s is locked by %s: waiting, at most %.0f seconds more",
                self._journal,
                holder,
                left,
            )
            self._say_at = now + SAY_EVERY_S
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return True


def _described(name: dict[str, Any]) -> str:
    worker = name.get("worker")
    if isinstance(worker, dict) and {"process", "machine"} <= set(worker):
        return f"process {worker['process']} on {worker['machine']}"
    return "another process"


def _identity(link: Path) -> Link | None:
    try:
        status = link.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _read(file: int) -> dict[str, Any]:
    """Return what the holder wrote; {} if that is nothing, or another program wrote it."""
    try:
        name = json.loads(os.pread(file, LONGEST_NAME, 0))
    except (ValueError, RecursionError):
        return {}
    return name if isinstance(name, dict) else {}


def _write(file: int, name: dict[str, Any]) -> None:
    """Overwrite the last name with a new one, in one call."""
    os.pwrite(file, json.dumps(name).encode().ljust(LONGEST_NAME), 0)
