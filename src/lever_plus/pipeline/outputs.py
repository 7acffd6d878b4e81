"""What a stage says when it is done, and the metrics files that it writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lever_plus.files.writing import write_json
from lever_plus.vlm.usage import Usage


class Outcome(NamedTuple):
    """A sentence for people, and what asking the VLM cost (None: it was not needed)."""

    text: str
    usage: Usage | None = None


def write_metrics(path: Path, values: Mapping[str, object]) -> None:
    """Write a metrics file, whole or not at all: sorted, indented JSON."""
    write_json(path, values)
