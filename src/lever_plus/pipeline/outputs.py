"""What a stage says when it is done, and the metrics files that it writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lever_plus.files.writing import write_json
from lever_plus.vlm.usage import Usage


class Outcome(NamedTuple):
    """A sentence for people, and what the requests to the VLM cost (None if it was not needed)."""

    text: str
    usage: Usage | None = None


def write_metrics(path: Path, values: Mapping[str, object]) -> None:
    """Write a metrics file as sorted, indented JSON; it is replaced in one step."""
    write_json(path, values)
