"""The journal file of a study: repaired after a writer was killed, refused if it is damaged.

Each line of a journal is a JSON object, and describes one operation. If the last line is
incomplete, because its writer was killed or the disk was full, it is moved to a file next to the
journal before the next line is added. For any other damage the error names the line, and the file
is not changed.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from optuna.storages.journal import BaseJournalBackend

from lever_plus.errors import UserError
from lever_plus.experiments.study.lock import GRACE_S, JournalLock
from lever_plus.experiments.study.operations import Operations
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import check_file
from lever_plus.files.writing import replacing

LOG = logging.getLogger("lever_plus")
ADVICE: Final = (
    "restore the file from a copy, or name another storage in search/params.yaml; it was not "
    "changed"
)
START: Final = b'{"op_code":'
"""The first bytes of every line."""
CHUNK: Final = 65_536


class Journal(BaseJournalBackend):
    """Reads and appends the operations of a journal; every process has its own `Journal`."""

    def __init__(self, path: Path, grace_s: float = GRACE_S) -> None:
        """Make the file if it is missing.

        Args:
            path: An absolute path.
            grace_s: How many seconds to wait for a lock whose holder is not known.

        Raises:
            UserError: The path is not a file, not a journal, or can't be made.
        """
        self._path, self._lock = path, JournalLock(path, grace_s)
        self._begin()
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        except OSError as error:
            raise UserError(f"{path} can't be made ({error.strerror}): {ADVICE}.") from error
        check_file(path, ADVICE)
        self._check_start()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the operations from a number on; an incomplete last line is left out.

        Raises:
            UserError: A line is damaged, or the file was replaced.
        """
        if log_number_from != self._count:  # the storage does not continue after its last one
            self._begin()
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._end:
                    raise UserError(
                        f"{self._path} is shorter than before: another file has taken its place. "
                        "Run the command again."
                    )
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):
                        return  # still being written, or left incomplete
                    where = f"{self._path}, line {self._count + 1}"
                    operation = parse_json(line, where, ADVICE)
                    self._operations.check(operation, where, ADVICE)
                    self._end += len(line)
                    self._count += 1
                    if self._count > log_number_from:
                        yield operation
        except OSError as error:
            raise UserError(f"{self._path} can't be read ({error.strerror}): {ADVICE}.") from error

    def _begin(self) -> None:
        """Start again from the first line."""
        self._count, self._end, self._operations = 0, 0, Operations()

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Add operations, all of them or none.

        Raises:
            UserError: The disk is full, or the file is gone or can't be written to.
        """
        lines = [json.dumps(log, separators=(",", ":"), allow_nan=False) + "\n" for log in logs]
        self._lock.acquire()
        try:
            # Without O_CREAT: a new journal without the first lines would be useless.
            file = os.open(self._path, os.O_RDWR | os.O_APPEND)
            try:
                _append(file, "".join(lines).encode(), self._repaired(file))
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(
                f"{self._path} can't be written to ({error.strerror}); its content is unchanged. "
                "Free some space, or let this user write there, and run the command again."
            ) from error
        finally:
            self._lock.release()

    def _repaired(self, file: int) -> int:
        """Move an incomplete last line to a file of its own; return the size of the rest."""
        size = os.fstat(file).st_size
        whole, torn = size, b""
        while whole and not torn.startswith(b"\n"):
            begin = max(0, whole - CHUNK)
            part = os.pread(file, whole - begin, begin)
            at = part.rfind(b"\n")
            torn = (part if at < 0 else part[at:]) + torn
            whole = begin if at < 0 else begin + at
        torn, whole = (torn[1:], whole + 1) if torn.startswith(b"\n") else (torn, whole)
        if torn:
            name = f"{self._path.name}.torn-{sha256(torn).hexdigest()[:8]}"
            kept = self._path.with_name(name)
            with replacing(kept) as fresh:
                fresh.write_bytes(torn)
            os.ftruncate(file, whole)
            LOG.warning(
                "%s ended with an incomplete line, because a process was killed or the disk was "
                "full: its %d bytes are now in %s, and the study continues without them",
                self._path,
                len(torn),
                kept,
            )
        return whole

    def _check_start(self) -> None:
        """Refuse a file that is not a journal, even one without any line."""
        with self._path.open("rb") as file:
            start = file.read(len(START))
        if start != START[: len(start)]:
            raise UserError(f"{self._path} is not the journal of a study: {ADVICE}.")


def _append(file: int, content: bytes, size: int) -> None:
    try:
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
