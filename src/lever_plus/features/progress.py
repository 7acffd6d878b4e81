"""Features that are encoded so far, on disk: a run that was stopped goes on where it was."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Progress:
    """Rows of one array in a memory-mapped file, and beside it how many are done.

    A batch counts as done once its rows are on disk; the count is replaced in one step, so that a
    run that is killed at any moment leaves a file that the next one can go on with.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Open what is there; `folder` must be named after everything that the rows depend on."""
        self._folder = folder
        self._array, self._count = folder / f"{name}.npy", folder / f"{name}.done"
        whole = self._array.is_file() and self._count.is_file()
        self.rows = int(self._count.read_text(encoding="ascii")) if whole else 0

    def add(self, rows: Array, total: int) -> None:
        """Append the next rows of an array that will have `total` rows."""
        if not self.rows:
            self._folder.mkdir(parents=True, exist_ok=True)
            shape = (total, rows.shape[1])
            array = np.lib.format.open_memmap(self._array, "w+", np.float32, shape)
        else:
            array = np.lib.format.open_memmap(self._array, "r+")
        array[self.rows : self.rows + len(rows)] = rows
        array.flush()
        self.rows += len(rows)
        fresh = self._count.with_suffix(".new")
        fresh.write_text(str(self.rows), encoding="ascii")
        fresh.replace(self._count)

    def finished(self) -> Array:
        """Return all rows."""
        return np.array(np.load(self._array, mmap_mode="r"))

    def remove(self) -> None:
        """Remove the folder, with the arrays of the other parts; the features are elsewhere."""
        shutil.rmtree(self._folder, ignore_errors=True)
