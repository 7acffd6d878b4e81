"""The scripts that write the reference, for tests; what must stand on its pages."""

import sys
from collections.abc import Iterator
from typing import Any

from lever_plus.files.yaml_files import read_yaml
from tiny_world import ROOT

sys.path.insert(0, str(ROOT / "docs" / "tools"))

import api
import commands
import hooks
import params
import write_reference

__all__ = ["api", "commands", "hooks", "leaves", "params", "write_reference"]
TABLES = {"rl_data.samples", "rl_data.stochastic_beam", "sft.targets", "rce.tau"}
"""Parameters that map names to values: each is one parameter."""


def leaves() -> list[str]:
    """Return the key of every parameter of params.yaml."""
    return list(_leaves(read_yaml(ROOT / "params.yaml", ""), ""))


def _leaves(values: Any, place: str) -> Iterator[str]:
    for name, value in values.items():
        key = f"{place}{name}"
        if isinstance(value, dict) and key not in TABLES:
            yield from _leaves(value, f"{key}.")
        else:
            yield key
