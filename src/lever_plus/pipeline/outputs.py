"""What a stage says when it is done, and the metrics files that it writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lever_plus.vlm.usage import Usage


class Outcome(NamedTuple):
    """A sentence for people, and what asking the VLM cost (None: it was not needed)."""

    text: str
    usage: Usage | None = None


def write_metrics(path: Path, values: Mapping[str, object]) -> None:
    """Write a metrics file: sorted, indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
