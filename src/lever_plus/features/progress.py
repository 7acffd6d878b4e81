"""Features that are encoded so far, on disk, so that a run that was stopped resumes there."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from lever_plus.errors import UserError
from lever_plus.features.arrays import check_unit, mapped
from lever_plus.features.whitening import Array
from lever_plus.files.reading import read_text
from lever_plus.files.writing import write_text


class Progress:
    """Rows of one array in a memory-mapped file, and a second file with the number of them.

    A batch counts once its rows are on disk. The count is replaced in one step, so a run that is
    killed at any moment leaves files with which the next run can resume.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Open the files of an array, if there are any; damaged ones count as empty.

        Args:
            folder: Folder of the files; its name must depend on all that the rows depend on.
            name: Name of the array.
        """
        self._folder = folder
        self._array, self._count = folder / f"{name}.npy", folder / f"{name}.done"
        self.rows = self._done()

    def _done(self) -> int:
        """Return the number of rows that are there; 0 if the files are missing or damaged."""
        try:
            text = read_text(self._count, "it is made again", limit=20)
            count = int(text) if text.isascii() and text.isdigit() else 0
            array = mapped(self._array, "it is made again")
            if array.dtype != np.float32 or array.ndim != 2 or count > len(array):
                return 0
            # Rows that were never written are 0.
            check_unit(array[:count], self._array, "it is made again", zeros=False)
        except (UserError, OSError):
            return 0
        return count

    def add(self, rows: Array, total: int) -> None:
        """Append the next rows, [n, dimensions], of an array that will have `total` rows.

        Raises:
            UserError: The file has rows of another shape, or cannot be written.
        """
        shape = (total, rows.shape[1])
        self._folder.mkdir(parents=True, exist_ok=True)
        mode: Literal["w+", "r+"] = "r+" if self.rows else "w+"
        array = np.lib.format.open_memmap(self._array, mode, np.float32, shape)
        if array.shape != shape:
            raise UserError(
                f"{self._array} holds features of another encoder or of other data: remove "
                f"{self._folder} and run `dvc repro embed` again."
            )
        array[self.rows : self.rows + len(rows)] = rows
        array.flush()
        self.rows += len(rows)
        write_text(self._count, str(self.rows))

    def finished(self) -> Array:
        """Return all rows, float32 [rows, dimensions]."""
        return np.array(np.load(self._array, mmap_mode="r", allow_pickle=False))

    def remove(self) -> None:
        """Remove the whole folder, with the arrays of other parts, once the features are saved."""
        shutil.rmtree(self._folder, ignore_errors=True)
