"""history.jsonl, the record of a training run: one JSON object per line and dev evaluation."""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from lever_plus.errors import UserError
from lever_plus.files.json_files import json_lines

Row = dict[str, float | int | str]
NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_ .:-]*(/[A-Za-z0-9_][A-Za-z0-9_ .:-]*)*"
"""Metric names that MLflow accepts and that can't lead out of a folder when used as a path."""
LONGEST_NAME: Final = 200
LARGEST_STEP: Final = 2**63 - 1
"""Databases store steps in 64 bits."""
ADVICE: Final = "run its stage again (`dvc repro`), or restore the file with `dvc checkout`"


class History:
    """Writes rows to a file as they come, and passes each to an observer (live logging)."""

    def __init__(self, path: Path, observe: Callable[[Row], None]) -> None:
        """Start a new file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._observe = observe

    def __enter__(self) -> "History":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def write(self, row: Row) -> None:
        """Write one row; numbers are rounded to 9 decimals, keys sorted.

        Raises:
            UserError: A number is NaN or infinite (the training has diverged), or the file can't be
                written.
        """
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(
                    f"{self._path}: {key} is {value} at step {row.get('step')}: the training has "
                    "diverged. Lower its learning rate, or look for an extreme reward."
                )
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()}
        try:
            self._file.write(json.dumps(rounded, sort_keys=True, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self._path} can't be written ({error.strerror}): free some disk space, or "
                "let this user write there, and run the stage again."
            ) from error
        self._observe(rounded)


def read_history(path: Path) -> list[Row]:
    """Read all rows; UserError if the file is missing or a line is damaged."""
    rows: list[Row] = []
    for where, row in json_lines(path, ADVICE):
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(row, dict) or type(step) is not int or not 0 <= step <= LARGEST_STEP:
            raise UserError(f"{where}: not a row with a step: {ADVICE}.")
        for key, value in row.items():
            if len(key) > LONGEST_NAME or not re.fullmatch(NAME, key):
                raise UserError(f"{where}: {key!r:.60} is not a valid metric name: {ADVICE}.")
            if type(value) not in (int, float, str):
                raise UserError(f"{where}: {key} is {value!r:.60}, not a number or text: {ADVICE}.")
            if not isinstance(value, str) and not abs(value) <= sys.float_info.max:
                raise UserError(f"{where}: {key} is too large a number: {ADVICE}.")
        rows.append(row)
    return rows
