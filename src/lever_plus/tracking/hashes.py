"""What DVC knows of the data behind a run: hashes of what its stage reads, from dvc.lock."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

DATA = "artifacts/"


class DataInput(NamedTuple):
    """A file or folder that a stage reads, and its md5 in DVC."""

    path: str
    md5: str


def data_inputs(stage: str, root: Path) -> list[DataInput]:
    """Return what a stage reads of earlier stages' outputs; those without a lock are left out.

    Args:
        stage: Name in dvc.yaml, such as "grpo"; of an unknown stage there are none.
        root: Folder of dvc.yaml and dvc.lock.
    """
    entry = _read(root / "dvc.yaml").get("stages", {}).get(stage, {})
    wanted = [str(dep) for dep in entry.get("deps", []) if str(dep).startswith(DATA)]
    known = locked_outputs(root)
    return [DataInput(path, known[path]) for path in wanted if path in known]


def locked_outputs(root: Path) -> dict[str, str]:
    """Return {path: md5} of all outputs in dvc.lock."""
    stages = _read(root / "dvc.lock").get("stages", {})
    return {
        out["path"]: out["md5"]
        for entry in stages.values()
        for out in entry.get("outs", [])
        if "md5" in out
    }


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    content: Mapping[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
    return content
