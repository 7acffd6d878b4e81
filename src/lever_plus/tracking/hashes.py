"""The data behind a run: the hashes that dvc.lock has of the files that its stage reads."""

from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.files.yaml_files import read_yaml

DATA = "artifacts/"
ITEM: Final = "${item.seed}"
ADVICE: Final = "restore it with `git checkout`, or run `dvc repro`"


class DataInput(NamedTuple):
    """A file or folder that a stage reads, and its md5 in DVC."""

    path: str
    md5: str


def data_inputs(stage: str, seed: int, root: Path) -> list[DataInput]:
    """Return the outputs of earlier stages that a stage reads; those not in dvc.lock are left out.

    Args:
        stage: Name in dvc.yaml, such as "grpo"; an unknown stage has no inputs.
        seed: Training seed, which replaces `${item.seed}` in the stage's paths.
        root: Folder of dvc.yaml and dvc.lock.
    """
    entry = _stages(root / "dvc.yaml").get(stage, {})
    deps = entry.get("deps") if isinstance(entry, dict) else None
    paths = [str(dep).replace(ITEM, str(seed)) for dep in _list(deps)]
    wanted = [path for path in paths if path.startswith(DATA)]
    known = locked_outputs(root)
    return [DataInput(path, known[path]) for path in wanted if path in known]


def locked_outputs(root: Path) -> dict[str, str]:
    """Return {path: md5} of all outputs in dvc.lock."""
    entries = [entry for entry in _stages(root / "dvc.lock").values() if isinstance(entry, dict)]
    outs = [out for entry in entries for out in _list(entry.get("outs")) if isinstance(out, dict)]
    return {str(out["path"]): str(out["md5"]) for out in outs if out.get("md5") and out.get("path")}


def _stages(path: Path) -> dict[str, Any]:
    """Return the stages of dvc.yaml or dvc.lock; none if the file is missing or empty."""
    if not path.is_file() or not path.stat().st_size:
        return {}
    stages = read_yaml(path, ADVICE).get("stages")
    return stages if isinstance(stages, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
