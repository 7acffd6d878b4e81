"""The state from which an interrupted training resumes: one file, written after every epoch.

It is a safetensors file of tensors with a JSON header; nothing is unpickled. The file is replaced
in one step, so it is complete even if the process is killed. The caller must give each training
(its settings, data and code) a file name of its own; a hash of name and content shows whether a
file is what was saved under that name.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from lever_plus.errors import UserError
from lever_plus.files.tensors import read_tensors, tensors_hash
from lever_plus.files.writing import replacing

LOG = logging.getLogger("lever_plus")
StateDict = dict[str, Any]
"""Tensors and JSON values by name."""


class Stateful(Protocol):
    """A part of a training whose state is needed in order to resume."""

    def state_dict(self) -> StateDict:
        """Return the current state of the part."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        ...


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a reader finds either the whole old state or the whole new one."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    facts = json.dumps({name: value for name, value in state.items() if name not in tensors})
    # Clones: safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"facts": facts, "sha256": _hash(path, whole, facts)}
    with replacing(path) as fresh:
        save_file(whole, fresh, metadata=metadata)


def read_state(path: Path) -> StateDict | None:
    """Return the state of an interrupted training; None if there is none.

    A file that is damaged or was saved under another name is ignored with a warning; the training
    then starts from the beginning.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(
            path, "the training starts from the beginning", finite=False
        )
    except UserError as error:
        LOG.warning("%s", error)
        return None
    facts = metadata.get("facts", "")
    if metadata.get("sha256") != _hash(path, tensors, facts):
        LOG.warning(
            "%s is not the state of this training: the training starts from the beginning.", path
        )
        return None
    return {**tensors, **json.loads(facts)}


def _hash(path: Path, tensors: Mapping[str, Tensor], facts: str) -> str:
    parts = json.dumps([path.name, facts, tensors_hash(tensors)])
    return hashlib.sha256(parts.encode()).hexdigest()


def prefixed(prefix: str, state: Mapping[str, Any]) -> StateDict:
    """Return a state with a prefix before its names."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unprefixed(prefix: str, state: Mapping[str, Any]) -> StateDict:
    """Return the part of a state whose names begin with a prefix, and remove the prefix."""
    start = f"{prefix}."
    return {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments and step counts as {"<parameter number>.<key>": tensor}."""
    states = optimizer.state_dict()["state"]
    return {f"{n}.{key}": value for n, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors from `optimizer_tensors` into an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
