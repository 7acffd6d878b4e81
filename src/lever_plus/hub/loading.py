"""Loads models by path or hub id: every weight comes from the file, and a hash identifies them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.hub.folder import as_downloaded, check_folder, find_folder, folder_hash, state_of

NEVER: Final = {"trust_remote_code": False, "local_files_only": True}
"""Options of every load: no code of the folder runs, and the network is not used."""
OLD_BUFFERS: Final = ("position_ids", "inv_freq", "masked_bias", "num_batches_tracked")
"""Endings of names of buffers that earlier versions saved, although they are not weights."""
ADVICE: Final = (
    "get the whole checkpoint again, or use a model that this version of transformers supports"
)
LACKS_TORCHVISION: Final = "Missing optional dependencies: torchvision"
"""What transformers says (not in an ImportError) if a processor works only with torchvision."""


def load_processor(path: str, revision: str | None) -> Any:
    """Load the processor of a model.

    It prepares images with Pillow if transformers offers that for the model, whether torchvision is
    installed or not: pixels of the two differ, so answers and features would differ, too.

    Args:
        path: Hugging Face folder or hub id, see `find_folder`.
        revision: Commit, if `path` is a hub id; None for a folder.

    Raises:
        UserError: There is no such model; or its processor needs code of its own, or a package that
            is missing or cannot be imported.
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
        model_class: Auto class of transformers for the model.
        path: Hugging Face folder or hub id, see `find_folder`.
        revision: Commit, if `path` is a hub id; None for a folder.
        device: Such as "cpu" or "cuda:0".
        identity: The identity that it must have, from `identify`; None: any.
        **options: Passed on to `from_pretrained`, such as dtype.

    Raises:
        UserError: There is no such model, the device cannot be used, the folder was changed after
            it was identified; or weights are missing (and would be random), left over, or not
            finite.
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
    """Return (class, identity) of a model, without loading its weights.

    The identity is the hash of all files that loading reads. For a hub id it is the commit instead,
    provided that the files in the cache are still those of the commit.

    Raises:
        UserError: There is no such model, or it cannot be used.
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
    """Return the class of model that a configuration names, else the configuration's own class."""
    named = config.architectures
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) and first.isidentifier() else type(config).__name__


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn whatever transformers raises in this block into a UserError that names the model."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, UserError):
        raise
    except BaseException as error:  # panics of the tokenizers library are not Exceptions
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        _check_torchvision(path, error)
        if isinstance(error, ImportError) or LACKS_TORCHVISION in str(error):
            # The first line of transformers' message about torchvision breaks off.
            missing = LACKS_TORCHVISION in str(error)
            what = "it needs torchvision" if missing else _first_line(error).partition(". ")[0]
            raise UserError(
                f"{path} cannot be loaded: {what}: install the package that this names "
                "(torchvision and num2words: pip install 'lever-plus[vision]')."
            ) from error
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{path} cannot be loaded without its own code (auto_map), which is never run: use "
                "a model that transformers supports."
            ) from error
        raise UserError(f"{path} cannot be loaded ({_first_line(error)}): {ADVICE}.") from error


def _check_torchvision(path: str, error: BaseException) -> None:
    """Raise UserError if the cause is a torchvision that was built for another version of torch."""
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
    """Refuse a load in which weights would be random, or the model has no place for some."""
    for kind in ("missing_keys", "mismatched_keys"):
        if report[kind]:
            raise UserError(
                f"{path}: {len(report[kind])} {kind.replace('_', ' ')} (such as "
                f"{sorted(map(str, report[kind]))[0]}): these weights would be random. Get the "
                "whole checkpoint."
            )
    left = sorted(n for n in map(str, report["unexpected_keys"]) if not n.endswith(OLD_BUFFERS))
    if left:
        raise UserError(
            f"{path}: the model has no place for {len(left)} of the weights (such as {left[0]}): "
            "its config.json belongs to another model. Get the whole checkpoint."
        )
    if report.get("error_msgs"):
        raise UserError(f"{path} cannot be loaded ({report['error_msgs'][0]}): {ADVICE}.")


def _check_finite(model: Any, path: str) -> None:
    """Refuse weights that are not finite: answers and features would be noise."""
    import torch

    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise UserError(
                f"{path}: {name} holds numbers that are not finite in {weight.dtype}: get the "
                "whole checkpoint again, or use a dtype of a larger range (float32)."
            )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
