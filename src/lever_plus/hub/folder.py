"""Hugging Face folders: how they are found, what they may hold, and the hash that identifies them.

A model's folder need not be trusted: its weights must be safetensors, no code in it runs, and every
file that loading can read is part of the hash.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from lever_plus.errors import UserError
from lever_plus.files.json_files import read_object
from lever_plus.files.names import SHIPPED
from lever_plus.files.reading import is_there, read_bytes
from lever_plus.files.tensors import read_header
from lever_plus.hub.repository import NotFetchedError, fetch, is_hub_id

ADVICE: Final = "get the whole checkpoint again, or name another folder"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLES: Final = ("pytorch_model", "tf_model", "flax_model", "model.ckpt", "consolidated")
SETTINGS: Final = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer_config.json", "video_preprocessor_config.json"),
)
TEMPLATES: Final = "additional_chat_templates"
TOKENIZERS: Final = "*tokenizer*"
"""Folders of further tokenizers, which some processors have, such as InstructBLIP's."""
NEVER_READ: Final = frozenset(
    [
        *("", ".bin", ".ckpt", ".csv", ".gguf", ".gif", ".h5", ".ipynb", ".jpeg", ".jpg", ".lock"),
        *(".log", ".md", ".mlmodel", ".msgpack", ".npz", ".onnx", ".ot", ".pdf", ".pkl", ".png"),
        *(".pt", ".pth", ".py", ".svg", ".tflite", ".webp", ".zip"),
    ]
)
"""Suffixes of files that loading never reads: documents, and weights in other formats."""
MOST_LAYERS: Final = 10_000
SHA256: Final = 64
"""Hexadecimal digits of a SHA-256."""
MODELS: Final = Path(__file__).parents[1] / "house_words" / "models"
"""Folder of the shipped models, in a checkout and in an installed package."""
DOWNLOADED: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken")


def find_folder(path: str, revision: str | None) -> Path:
    """Return the folder of a model.

    Args:
        path: A folder, "shipped:NAME", or a hub id. A hub id is looked up in the local cache, and
            fetched if the environment allows it (`HF_HUB_OFFLINE=0`).
        revision: Commit, if `path` is a hub id; None for a folder.

    Raises:
        UserError: There is no such model.
    """
    if path.startswith(SHIPPED):
        return _shipped(path)
    folder = Path(path)
    if not is_there(folder) and is_hub_id(path):
        try:
            folder = fetch(path, revision, DOWNLOADED)
        except NotFetchedError as error:
            raise UserError(
                f"{path} holds no model: there is no such folder, and it is {error}: correct the "
                "path."
            ) from error
    if not is_there(folder / "config.json"):
        raise UserError(f"{path} holds no model: correct the path.")
    return folder


def _shipped(path: str) -> Path:
    """Return the folder of a shipped model; only names that are listed are taken, never a path."""
    there = {SHIPPED + config.parent.name: config.parent for config in MODELS.glob("*/config.json")}
    if path not in there:
        listed = ", ".join(sorted(there)) or "none: install it again"
        raise UserError(f"{path} is not a model of the package, which has {listed}.")
    return there[path]


def check_folder(folder: Path, *, weights: bool) -> None:
    """Refuse a folder that is damaged or would have to be trusted; no weights are read.

    Args:
        folder: Folder of the model.
        weights: Whether its weights are about to be used, too, so that they are checked.

    Raises:
        UserError: It holds an adapter, refers to code or models elsewhere, or its settings or
            weights are damaged, missing, pickled or outside the folder.
    """
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} holds an adapter (adapter_config.json): merge it into its model (peft's "
            "merge_and_unload), and save the merged model."
        )
    for place in (folder, *_further(folder)):
        for name in SETTINGS:
            if (place / name).exists():
                _check_settings(read_object(place / name, ADVICE), place / name)
    if weights:
        for path in weight_files(folder):
            _check_weights(path)


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's weights.

    Raises:
        UserError: There are none, an index names one that is missing or outside the folder, or
            there are only weights in formats that can run code.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        others = [p.name for p in sorted(folder.iterdir()) if p.name.startswith(PICKLES)]
        if others:
            raise UserError(
                f"{folder} has its weights in {others[0]}, which is not read, because such files "
                f"can hold code: save the model as {WEIGHTS} (save_pretrained)."
            )
        raise UserError(f"{folder} has no {WEIGHTS}: {ADVICE}.")
    shards = read_object(folder / INDEX, ADVICE).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{folder / INDEX} has no weight_map: {ADVICE}.")
    for name in shards.values():
        beside = isinstance(name, str) and name == Path(name).name
        if not beside or not name.endswith(".safetensors"):
            raise UserError(
                f"{folder / INDEX} names {name!r}, which is not a safetensors file in the same "
                f"folder: {ADVICE}."
            )
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}, which {INDEX} names: {ADVICE}.")
    return [folder / name for name in sorted(set(shards.values()))]


def _check_settings(content: Any, path: Path) -> None:
    """Refuse settings that name other models, files or code elsewhere, or far too many layers."""
    for key, value in _settings(content):
        if key == "transformers_weights":
            raise UserError(f"{path}: {key} names another file of weights: rename it {WEIGHTS}.")
        if key.endswith("attn_implementation") and "/" in str(value):
            raise UserError(f"{path}: {key} names code on the hub ({value}): remove it.")
        if key == "fast_tokenizer_files" and any("/" in str(name) for name in _listed(value)):
            raise UserError(f"{path}: {key} names files elsewhere ({value}): remove it.")
        if key == "audio_tokenizer_name_or_path":
            raise UserError(f"{path}: {key} names another model ({value}): remove it.")
        if "layers" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise UserError(f"{path}: {key} is {value}, which no model has: {ADVICE}.")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _settings(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _settings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _settings(value)


def _check_weights(path: Path) -> None:
    """Refuse damaged weights, and 8-bit formats in which only some processors can compute."""
    for name, tensor in read_header(path, ADVICE).tensors.items():
        if tensor.dtype.startswith("F8"):
            raise UserError(f"{path}: {name} holds {tensor.dtype}: use weights of 16 or 32 bits.")
        if not tensor.dtype.startswith(("F", "BF")) and name.endswith(("weight", "bias")):
            raise UserError(f"{path}: {name} holds {tensor.dtype}, not weights: {ADVICE}.")


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 (hex) of the names and bytes of all files that loading a model can read.

    A file is hashed once per process, and again after it is touched.
    """
    digest = hashlib.sha256()
    for path in _identifying(folder):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(_file_hash(path, *touched(path)))
    return digest.hexdigest()


def as_downloaded(folder: Path) -> bool:
    """Return whether the files of a snapshot in the hub's cache are still those of its commit.

    They are links to files whose names are hashes of their content: a SHA-256, or git's own hash.
    """
    for path in _identifying(folder):
        name = path.resolve().name
        if len(name) == SHA256:
            made = _file_hash(path, *touched(path)).hex()
        else:
            content = read_bytes(path, ADVICE)
            made = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if made != name:
            return False
    return True


def state_of(folder: Path) -> tuple[tuple[Any, ...], ...]:
    """Return a value that changes when a file in `folder_hash` is written, removed or added."""
    return tuple((path, *touched(path)) for path in _identifying(folder))


def touched(path: Path) -> tuple[int, ...]:
    """Return a file's device, inode, size and times; the last one (ctime) can't be set back."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {ADVICE}.") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _identifying(folder: Path) -> list[Path]:
    """Return the files that are hashed: all but hidden ones and those with a suffix never read."""
    there = [path for place in (folder, *_further(folder)) for path in place.iterdir()]
    there += [path for place in (folder, *_further(folder)) for path in _templates(place)]
    return sorted(
        path
        for path in there
        if path.suffix.lower() not in NEVER_READ
        and not path.name.startswith(".")
        and path.is_file()
    )


def _further(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(TOKENIZERS) if path.is_dir())


def _templates(folder: Path) -> Iterator[Path]:
    return (folder / TEMPLATES).glob("*.jinja")


@cache
def _file_hash(path: Path, *_touched: int) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {ADVICE}.") from error
