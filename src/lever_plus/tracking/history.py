"""history.jsonl: one JSON object a row, the record of a training run that everything else reads."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from lever_plus.errors import UserError

Row = dict[str, float | int | str]


class History:
    """Writes rows to a file as they come, and hands each on to an observer."""

    def __init__(self, path: Path, observe: Callable[[Row], None]) -> None:
        """Start a new file."""
        path.parent.mkdir(parents=True, exist_ok=True)
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
        """Write one row; numbers are rounded to 9 decimals, keys sorted."""
        rounded = {k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()}
        self._file.write(json.dumps(rounded, sort_keys=True) + "\n")
        self._file.flush()
        self._observe(rounded)


def read_history(path: Path) -> list[Row]:
    """Read all rows; UserError if the file is missing or a line is damaged."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run the stage that writes it (`dvc repro`).")
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {number}: damaged ({error}). Run its stage again."
            ) from error
    return rows
