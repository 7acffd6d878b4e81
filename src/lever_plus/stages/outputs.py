"""Metrics files: what the training stages write beside their checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_metrics(path: Path, values: Mapping[str, object]) -> None:
    """Write a metrics file: sorted, indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
