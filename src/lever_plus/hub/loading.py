"""Loading a model by path or hub id: every weight from the file, and a hash that identifies it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.hub.folder import as_downloaded, check_folder, find_folder, folder_hash, state_of

NEVER: Final = {"trust_remote_code": False, "local_files_only": True}
"""Of every load: no code of the folder runs, and no network is asked."""
OLD_BUFFERS: Final = ("position_ids", "inv_freq", "masked_bias", "num_batches_tracked")
"""What models of earlier versions saved though it is no weight."""
LACKS_TORCHVISION: Final = "Missing optional dependencies: torchvision"
"""What transformers says, not in an ImportError, where only torchvision makes images ready."""


def load_processor(path: str, revision: str | None) -> Any:
    """Load the processor of a model.

    Images are made ready by Pillow wherever the library has that for the model, whether torchvision
    is installed or not: the two make pixels that differ, and so would answers and features.

    Args:
        path: Hugging Face folder, or hub id (found in the local cache, or fetched where the
            environment allows it: `HF_HUB_OFFLINE=0`).
        revision: Commit of a hub id; None for a folder.

    Raises:
        UserError: There is no such model, its processor needs a package that is missing or does not
            load, or code of its own.
    """
    folder = find_folder(path, revision)
    check_folder(folder, weights=False)
    with explained(path):
        import transformers

        processor = transformers.AutoProcessor.from_pretrained(str(folder), **NEVER)
        images = type(getattr(processor, "image_processor", None)).__name__
        in_pillow = getattr(transformers, f"{images}Pil", None)
        if in_pillow is not None:
            processor.image_processor = in_pillow.from_pretrained(str(folder), **NEVER)
        return processor


def load_model(
    model_class: Any,
    path: str,
    revision: str | None,
    device: str,
    *,
    identity: str | None = None,
    **options: Any,
) -> Any:
    """Load a model in eval mode.

    Args:
        model_class: Auto class of the model.
        path: Hugging Face folder or hub id.
        revision: Commit of a hub id; None for a folder.
        device: Such as "cpu" or "cuda:0".
        identity: What `identify` said of it; None: whatever it is now.
        **options: Passed on, such as dtype.

    Raises:
        UserError: There is no such model, the device is not there, the folder is not the one that
            was identified, weights are missing in the file, so that some would be random, are left
            over, or are not finite.
    """
    folder = find_folder(path, revision)
    check_folder(folder, weights=True)
    before = state_of(folder)
    if identity is not None and identify(path, revision)[1] != identity:
        raise UserError(f"{path} was changed since it was identified: run the command again.")
    with explained(path):
        model, report = model_class.from_pretrained(
            str(folder), output_loading_info=True, use_safetensors=True, **options, **NEVER
        )
    _check_report(report, path)
    _check_finite(model, path)
    if state_of(folder) != before:
        raise UserError(f"{path} was changed while it was loaded: run the command again.")
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {device} cannot be used ({_first_line(error)}): set the device to cpu."
        ) from error


def identify(path: str, revision: str | None) -> tuple[str, str]:
    """Return the class of a model and what identifies it, without loading its weights.

    That is the hash of every file that a load reads; of a hub id the commit, as long as the files
    in the cache are those of the commit.

    Raises:
        UserError: There is no such model, or it is none that can be used.
    """
    from transformers import AutoConfig

    folder = find_folder(path, revision)
    check_folder(folder, weights=True)
    with explained(path):
        config = AutoConfig.from_pretrained(str(folder), **NEVER)
    name = _architecture(config)
    if folder == Path(path) or not as_downloaded(folder):
        return name, folder_hash(folder)
    return name, folder.name


def _architecture(config: Any) -> str:
    """Return what a configuration calls its model, if that is a name, else its own class."""
    named = config.architectures
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) and first.isidentifier() else type(config).__name__


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn whatever a model's files make its library raise into a sentence that names the model."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, UserError):
        raise
    except BaseException as error:  # tokenizers' own panics are no Exceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        _check_torchvision(path, error)
        if isinstance(error, ImportError) or LACKS_TORCHVISION in str(error):
            # The first line of transformers' message breaks off.
            missing = LACKS_TORCHVISION in str(error)
            what = "it needs torchvision" if missing else _first_line(error).partition(". ")[0]
            raise UserError(
                f"{path} cannot be loaded: {what}: pip install 'lever-plus[vision]'."
            ) from error
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{path} cannot be loaded without code of its own (auto_map), which is never run: "
                "use a model that transformers knows."
            ) from error
        raise UserError(f"{path} cannot be loaded: {_first_line(error)}") from error


def _check_torchvision(path: str, error: BaseException) -> None:
    """Say so if the cause is a torchvision that was built for another torch than this one."""
    import torch

    cause: BaseException | None = error
    while cause is not None and "torchvision::" not in str(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        raise UserError(
            f"{path} cannot be loaded, because torchvision does not load ({_first_line(cause)}): "
            f"install the torchvision that is built for torch {torch.__version__}, or pip "
            "uninstall torchvision."
        ) from error


def _check_report(report: Any, path: str) -> None:
    """Refuse weights that would be random, and weights that the model has no place for."""
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            raise UserError(
                f"{path}: {len(report[kind])} {kind.replace('_', ' ')} (such as "
                f"{sorted(map(str, report[kind]))[0]}): those weights would be random. Get the "
                "whole checkpoint."
            )
    left = sorted(n for n in map(str, report["unexpected_keys"]) if not n.endswith(OLD_BUFFERS))
    if left:
        raise UserError(
            f"{path}: {len(left)} weights that the model has no place for (such as {left[0]}): its "
            "config.json is that of another model. Get the whole checkpoint."
        )
    if report.get("error_msgs"):
        raise UserError(f"{path} cannot be loaded: {report['error_msgs'][0]}")


def _check_finite(model: Any, path: str) -> None:
    """Refuse weights that are not finite: answers would be noise, or features."""
    import torch

    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UserError(
                f"{path}: {name} holds numbers that are not finite in {weight.dtype}: get the "
                "whole checkpoint again, or set a longer dtype."
            )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
