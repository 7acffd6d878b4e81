"""Loading a model by path or hub id: every weight from the file, and a hash that identifies it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lever_plus.errors import UserError

IDENTIFYING = {".json", ".safetensors", ".jinja", ".model", ".txt"}


def load_processor(processor_class: Any, path: str, revision: str | None) -> Any:
    """Load the processor of a model.

    Args:
        processor_class: Auto class of the processor.
        path: Hugging Face folder, or hub id (found in the local cache, or fetched where the
            environment allows it: `HF_HUB_OFFLINE=0`).
        revision: Commit of a hub id; None for a folder.

    Raises:
        UserError: There is no such model, or its processor needs a package that is missing.
    """
    _check_path(path)
    with _explained(path):
        return processor_class.from_pretrained(path, **_at(revision))


def load_model(
    model_class: Any, path: str, revision: str | None, device: str, **options: Any
) -> Any:
    """Load a model in eval mode.

    Args:
        model_class: Auto class of the model.
        path: Hugging Face folder or hub id.
        revision: Commit of a hub id; None for a folder.
        device: Such as "cpu" or "cuda:0".
        **options: Passed on, such as dtype.

    Raises:
        UserError: There is no such model, the device is not there, or weights are missing in the
            file, so that some would be random.
    """
    _check_path(path)
    with _explained(path):
        model, report = model_class.from_pretrained(
            path, output_loading_info=True, **options, **_at(revision)
        )
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            raise UserError(
                f"{path}: {len(report[kind])} {kind.replace('_', ' ')} (such as "
                f"{sorted(map(str, report[kind]))[0]}): those weights would be random. Get the "
                "whole checkpoint."
            )
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {device} cannot be used ({_first_line(error)}): set the device to cpu."
        ) from error


def identify(path: str, revision: str | None) -> tuple[str, str]:
    """Return the class of a model and what identifies its weights, without loading them.

    That is the folder's hash, or the hub's commit.
    """
    from transformers import AutoConfig

    _check_path(path)
    with _explained(path):
        config = AutoConfig.from_pretrained(path, **_at(revision))
    name = (config.architectures or [type(config).__name__])[0]
    commit = getattr(config, "_commit_hash", None) or revision
    return str(name), folder_hash(Path(path)) if Path(path).is_dir() else str(commit)


def _at(revision: str | None) -> dict[str, str]:
    return {} if revision is None else {"revision": revision}


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        # The first line of transformers' message breaks off.
        what = _first_line(error).partition(". ")[0]
        raise UserError(
            f"{path} cannot be loaded: {what}: pip install 'lever-plus[vision]'."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error


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
