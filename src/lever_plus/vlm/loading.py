"""Loading a VLM by path or hub id: every weight from the file, and a hash that identifies it."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from lever_plus.errors import UserError

IDENTIFYING = {".json", ".safetensors", ".jinja", ".model", ".txt"}


def load_vlm(
    path: str, revision: str | None, device: str, dtype: str, attn_implementation: str
) -> tuple[Any, Any, str]:
    """Load a model and its processor.

    Args:
        path: Hugging Face folder, or hub id (found in the local cache, or fetched where the
            environment allows it: `HF_HUB_OFFLINE=0`).
        revision: Commit of a hub id; None for a folder.
        device: Such as "cpu" or "cuda:0".
        dtype: Such as "float32".
        attn_implementation: Such as "sdpa".

    Returns:
        Model in eval mode, processor, and what identifies the weights: the folder's hash or the
        hub's commit.

    Raises:
        UserError: There is no such model, the processor needs a package that is missing, or
            weights are missing in the file, so that some would be random.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    _check_path(path)
    options = {} if revision is None else {"revision": revision}
    try:
        processor: Any = AutoProcessor.from_pretrained(path, **options)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **options,
        )
        model, report = loaded
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded as a VLM: {_first_line(error)}") from error
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            raise UserError(
                f"{path}: {len(report[kind])} {kind.replace('_', ' ')} (such as "
                f"{sorted(map(str, report[kind]))[0]}): those weights would be random. Get the "
                "whole checkpoint."
            )
    commit = getattr(model.config, "_commit_hash", None)
    identity = folder_hash(Path(path)) if Path(path).is_dir() else str(commit or revision)
    return model.to(device).eval(), processor, identity


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
        raise UserError(f"{path} holds no model: set vlm.path, or run `dvc repro pretrain`.")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
