"""Where an interrupted training goes on: its whole state after an epoch, in one file.

Tensors and a JSON header as safetensors: nothing is unpickled. The file is replaced in one step, so
that it is whole whenever the process is killed. Whoever names the file sees to it that another
training (other settings, data or code) has another name; a hash of name and content tells whether a
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
"""Tensors, and what JSON can hold, by name."""


class Stateful(Protocol):
    """A part of a training that it cannot go on without."""

    def state_dict(self) -> StateDict:
        """Return what the part has come to."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the part where another one was."""
        ...


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a reader finds the old one or the new one, never half of one."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    facts = json.dumps({name: value for name, value in state.items() if name not in tensors})
    # Clones: safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {"facts": facts, "sha256": _hash(path, whole, facts)}
    with replacing(path) as fresh:
        save_file(whole, fresh, metadata=metadata)


def read_state(path: Path) -> StateDict | None:
    """Return the state of an interrupted training; None if there is none that is whole.

    A file that is not what `save_state` left is named in a warning: the training starts anew.
    """
    if not path.exists():
        return None
    try:
        tensors, metadata = read_tensors(path, "the training starts anew", finite=False)
    except UserError as error:
        LOG.warning("%s", error)
        return None
    facts = metadata.get("facts", "")
    if metadata.get("sha256") != _hash(path, tensors, facts):
        LOG.warning("%s is not the state of this training: the training starts anew.", path)
        return None
    return {**tensors, **json.loads(facts)}


def _hash(path: Path, tensors: Mapping[str, Tensor], facts: str) -> str:
    parts = json.dumps([path.name, facts, tensors_hash(tensors)])
    return hashlib.sha256(parts.encode()).hexdigest()


def prefixed(prefix: str, state: Mapping[str, Any]) -> StateDict:
    """Return a state with a prefix before its names."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unprefixed(prefix: str, state: Mapping[str, Any]) -> StateDict:
    """Return the part of a state whose names have a prefix, without it."""
    start = f"{prefix}."
    return {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments and step counts of an optimiser, by number of the parameter."""
    states = optimizer.state_dict()["state"]
    return {f"{n}.{key}": value for n, state in states.items() for key, value in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the tensors of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
