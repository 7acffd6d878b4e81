"""Reads safetensors strictly: the header is checked against the file before a number is read.

Refused are headers that do not fit their file, types that the caller does not expect, and numbers
that are not finite. Memory is allocated only for data that the file is known to hold.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.errors import UserError
from lever_plus.files.checking import Row, checked
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import check_file

BYTES: Final = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2},
    **{"BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8},
}
"""Bytes per number, by the name of its type in the header."""
LONGEST_HEADER: Final = 100_000_000
"""In bytes; the format's own limit."""


class Described(Row):
    """What a header says about a tensor: its type, its shape, and where it is in the data.

    The offsets are the bytes, counted from the end of the header, where it begins and ends.
    """

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(NamedTuple):
    """A header that fits its file: its tensors by name, and its metadata."""

    tensors: Mapping[str, Described]
    metadata: Mapping[str, str]

    @property
    def numbers(self) -> int:
        """How many numbers the file holds."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def read_header(path: Path, advice: str) -> Header:
    """Read the header of a safetensors file, but none of its numbers.

    Args:
        path: The file.
        advice: What to do if it can't be used: "train it again".

    Raises:
        UserError: The file is missing or is not a safetensors file, or its header does not fit its
            data: gaps, overlaps, or sizes that contradict the shapes.
    """
    check_file(path, advice)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise UserError(f"{path} is damaged, or not a safetensors file: {advice}.")
            text = file.read(length)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {advice}.") from error
    where = f"{path} is damaged: header"
    content = parse_json(text, where, advice)
    if not isinstance(content, dict):
        raise UserError(f"{where} is not a JSON object: {advice}.")
    metadata = checked(dict[str, str], content.pop("__metadata__", {}), where, advice)
    tensors = checked(dict[str, Described], content, where, advice)
    _check_places(tensors, size - 8 - length, where, advice)
    return Header(tensors, metadata)


def read_tensors(
    path: Path, advice: str, dtypes: Collection[str] | None = None, *, finite: bool = True
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Read a safetensors file.

    Args:
        path: The file.
        advice: What to do if it can't be used.
        dtypes: The types that its tensors may have, named as in the header ("F32"); None: any.
        finite: Refuse numbers that are not finite. A caller that leaves them in must have another
            way to know that the file is the right one.

    Returns:
        Torch tensors by name, and the metadata.

    Raises:
        UserError: As `read_header`; also if a tensor has another type, or holds a number that is
            not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    header = read_header(path, advice)
    for name, described in header.tensors.items():
        if dtypes is not None and described.dtype not in dtypes:
            raise UserError(
                f"{path}: {name} holds {described.dtype}, not {' or '.join(sorted(dtypes))}: "
                f"{advice}."
            )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): {advice}.") from error
    for name, tensor in tensors.items():
        if finite and tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise UserError(f"{path}: {name} holds numbers that are not finite: {advice}.")
    return tensors, header.metadata


def tensors_hash(tensors: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the names, types, shapes and numbers of torch tensors on CPU."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def _check_places(tensors: Mapping[str, Described], size: int, where: str, advice: str) -> None:
    """Refuse tensors that do not fill `size` bytes of data one after another, without gaps."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if tensor.dtype not in BYTES:
            raise UserError(f"{where}: {name} has an unknown type, {tensor.dtype!r}: {advice}.")
        begin, last = tensor.data_offsets
        if min(tensor.shape, default=0) < 0:
            raise UserError(f"{where}: {name} has a negative size: {advice}.")
        if begin != end or last - begin != prod(tensor.shape) * BYTES[tensor.dtype]:
            raise UserError(f"{where}: {name} is not where its shape says: {advice}.")
        end = last
    if end != size:
        raise UserError(f"{where} describes {end:,} bytes, the file holds {size:,}: {advice}.")
