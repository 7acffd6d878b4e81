"""Features in `.npy` files: all numbers are checked first, then the file is read memory-mapped."""

from pathlib import Path
from typing import Final

import numpy as np

from lever_plus.errors import UserError
from lever_plus.features.whitening import Array
from lever_plus.files.reading import check_file

BLOCK: Final = 2**22
"""Numbers that are checked at once."""


def check_array(path: Path, shape: tuple[int, int], advice: str) -> Array:
    """Return the float32 array of a file, memory-mapped. Nothing is unpickled.

    Args:
        path: The file.
        shape: The rows and columns that it must have.
        advice: What to do if it can't be used.

    Raises:
        UserError: It is missing or damaged, has another shape, type or order, or holds a number
            that is not finite.
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
    """Return the array of a file, memory-mapped, whatever its type and shape.

    Raises:
        UserError: The file is missing or damaged, or holds an archive of arrays.
    """
    check_file(path, advice)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is parsed as Python, which can fail in many ways
        raise UserError(f"{path} is not an array of numbers ({error}): {advice}.") from error
    if not isinstance(array, np.memmap):
        raise UserError(f"{path} is an archive, not one array: {advice}.")
    return array


def check_unit(array: Array, path: Path, advice: str, *, zeros: bool = True) -> None:
    """Refuse features whose rows do not have unit length; UserError names their file.

    Args:
        array: The features, [n, dimensions].
        path: Their file.
        advice: What to do about it.
        zeros: Whether rows may be all 0, which is what an encoder gives for an input without any
            feature.
    """
    for part in _blocks(array):
        squares = np.einsum("nd,nd->n", part, part, dtype=np.float64)
        if not ((np.abs(squares - 1) < 0.01) | (zeros & (squares == 0))).all():
            raise UserError(f"{path} holds features without unit length: {advice}.")


def _blocks(array: Array) -> list[Array]:
    rows = max(1, BLOCK // max(1, array.shape[1]))
    return [array[start : start + rows] for start in range(0, len(array), rows)]
