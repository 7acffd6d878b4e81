"""Features in `.npy` files: checked whole before they are used, then read memory-mapped."""

from pathlib import Path
from typing import Final

import numpy as np

from lever_plus.errors import UserError
from lever_plus.features.whitening import Array
from lever_plus.files.reading import check_file

BLOCK: Final = 2**22
"""Numbers that are checked at once."""


def check_array(path: Path, shape: tuple[int, int], advice: str) -> Array:
    """Return a float32 array of a file, memory-mapped.

    Args:
        path: The file.
        shape: Its rows and columns.
        advice: What to do if it can't be used.

    Raises:
        UserError: It is missing or damaged, has another shape, type or order, or holds a number
            that is not finite. Nothing is unpickled.
    """
    array = mapped(path, advice)
    if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}, not float32 {shape} row by row: {advice}."
        )
    if not all(np.isfinite(part).all() for part in _blocks(array)):
        raise UserError(f"{path} holds numbers that are not finite: {advice}.")
    return array


def mapped(path: Path, advice: str) -> Array:
    """Return any array of a file, memory-mapped; errors as `check_array`."""
    check_file(path, advice)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is parsed as Python, which fails in many ways
        raise UserError(f"{path} is no array of numbers ({error}): {advice}.") from error
    if not isinstance(array, np.memmap):
        raise UserError(f"{path} is an archive, not one array: {advice}.")
    return array


def check_unit(array: Array, path: Path, advice: str, *, zeros: bool = True) -> None:
    """Refuse features [n, dimensions] of which one has not unit length.

    Args:
        array: The features.
        path: Their file.
        advice: What to do.
        zeros: Whether one may be 0 altogether, as an encoder leaves what it sees nothing in.
    """
    for part in _blocks(array):
        squares = np.einsum("nd,nd->n", part, part, dtype=np.float64)
        if not ((np.abs(squares - 1) < 0.01) | (zeros & (squares == 0))).all():
            raise UserError(f"{path} holds features that have not unit length: {advice}.")


def _blocks(array: Array) -> list[Array]:
    rows = max(1, BLOCK // max(1, array.shape[1]))
    return [array[start : start + rows] for start in range(0, len(array), rows)]
