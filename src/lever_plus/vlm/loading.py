"""Loading a model by path or hub id: every weight from the file, and a hash that identifies it."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from lever_plus.errors import UserError

IDENTIFYING = {".json", ".safetensors", ".jinja", ".model", ".txt"}


def load_pretrained(
    model_class: Any,
    processor_class: Any,
    path: str,
    revision: str | None,
    device: str,
    **options: Any,
) -> tuple[Any, Any, str]:
    """Load a model and its processor.

    Args:
        model_class: Auto class of the model.
        processor_class: Auto class of the processor.
        path: Hugging Face folder, or hub id (found in the local cache, or fetched where the
            environment allows it: `HF_HUB_OFFLINE=0`).
        revision: Commit of a hub id; None for a folder.
        device: Such as "cpu" or "cuda:0".
        **options: Passed on to the model, such as dtype.

    Returns:
        Model in eval mode, processor, and what identifies the weights: the folder's hash or the
        hub's commit.

    Raises:
        UserError: There is no such model, the processor needs a package that is missing, the device
            is not there, or weights are missing in the file, so that some would be random.
    """
    _check_path(path)
    at = {} if revision is None else {"revision": revision}
    try:
        processor = processor_class.from_pretrained(path, **at)
        model, report = model_class.from_pretrained(path, output_loading_info=True, **options, **at)
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            raise UserError(
                f"{path}: {len(report[kind])} {kind.replace('_', ' ')} (such as "
                f"{sorted(map(str, report[kind]))[0]}): those weights would be random. Get the "
                "whole checkpoint."
            )
    commit = getattr(model.config, "_commit_hash", None)
    identity = folder_hash(Path(path)) if Path(path).is_dir() else str(commit or revision)
    try:
        return model.to(device).eval(), processor, identity
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {device} cannot be used ({_first_line(error)}): set the device to cpu."
        ) from error


def load_vlm(
    path: str, revision: str | None, device: str, dtype: str, attn_implementation: str
) -> tuple[Any, Any, str]:
    """Load a VLM, its processor and what identifies it, as `load_pretrained` does."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return load_pretrained(
        AutoModelForImageTextToText,
        AutoProcessor,
        path,
        revision,
        device,
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation,
    )


def folder_hash(folder: Path) -> str:
    """Return a sha256 over the names and bytes of the configuration and weight files of a model."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in IDENTIFYING):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _check_path(path: str) -> None:
    folder = Path(path)
    is_hub_id = (
        path.count("/") == 1 and not path.startswith((".", "/", "~")) and not folder.exists()
    )
    if not is_hub_id and not (folder / "config.json").is_file():
        raise UserError(
            f"{path} holds no model: correct the path in params.yaml, or run `dvc repro pretrain`."
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
