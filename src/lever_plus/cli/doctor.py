"""`lever-plus doctor`: checks what a run with these params needs, and says how to get the rest."""

import asyncio
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from lever_plus.config.data import VqaFilesSource, VqaSplit
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams, OpenAiVlmParams, PluginVlmParams, VlmParams
from lever_plus.data.pools import SAMPLERS
from lever_plus.errors import UserError
from lever_plus.files.json_files import read_object
from lever_plus.files.names import SHIPPED
from lever_plus.files.secrets import without_secrets
from lever_plus.hub.folder import check_folder, find_folder
from lever_plus.vlm.backends.words import quoted

VQA: Final = "https://visualqa.org/download.html"
OKVQA: Final = "https://okvqa.allenai.org/download.html"
EASY: Final = "the package easy-vqa (see docs/guides/own-data.md)"
COCO: Final = "https://cocodataset.org/#download"
ORIGINS: Final = {
    "okvqa": (OKVQA, COCO),
    "vqav2": (VQA, COCO),
    "v2_openended": (VQA, COCO),
    "easy-vqa": (EASY, EASY),
}
"""{part of a file's name: where its questions and annotations come from, and its images}."""
OWN: Final = "put your own there, or correct the path in data.source"
NEED_TORCHVISION: Final = (
    *("qwen2", "qwen3", "smolvlm", "llavaonevision", "lfm2", "lfm3", "gemma4", "internvl"),
    *("minicpmv", "molmo2", "glm4"),
)
"""Model families whose processor needs torchvision, in letters and digits only."""
FREE_GIGABYTES: Final = 5
SERVER_SECONDS: Final = 5
ANSWER_SECONDS: Final = 60.0


class Item(NamedTuple):
    """One thing that a run needs.

    Attributes:
        name: What is needed.
        found: Whether it is there.
        note: What was found, or what to do.
    """

    name: str
    found: bool
    note: str


def examine(params: Params) -> list[Item]:
    """Check everything that params.yaml names, without loading a model."""
    parts = (_data, _vlm, _encoder, _optional, _machine)
    items = [item for part in parts for item in part(params)]
    return [item._replace(note=without_secrets(item.note)) for item in items]


def _data(params: Params) -> Iterator[Item]:
    source = params.data.source
    if not isinstance(source, VqaFilesSource):
        yield Item("data", found=True, note="the stage `prepare` makes the embedded data set")
        return
    root = Path(source.root)
    for name in ("train", "dev", "test"):
        split = getattr(source, name)
        if not isinstance(split, VqaSplit):
            yield Item(f"data, {name}", found=True, note="will be held out of the training split")
            continue
        named = (found for part, found in ORIGINS.items() if part in split.questions.lower())
        where, images = next(named, ("", ""))
        for kind in ("questions", "annotations"):
            path = root / getattr(split, kind)
            note = f"{path}" if path.is_file() else f"{path} is missing: {_get(where)}"
            yield Item(f"data, {name} {kind}", path.is_file(), note)
        yield _images(f"data, {name} images", root / split.images, images)
    yield from _texts(source, params.vlm, params.evaluate.instructions)


def _texts(source: VqaFilesSource, vlm: VlmParams, instructions: list[str]) -> Iterator[Item]:
    """Check that the VLM can read all texts; nothing is checked if a file is missing."""
    root = Path(source.root)
    splits = [s for s in (source.train, source.dev, source.test) if isinstance(s, VqaSplit)]
    files = [root / name for split in splits for name in (split.questions, split.annotations)]
    if not all(path.is_file() for path in files):
        return
    from lever_plus.data.vqa_files import read_vqa_files
    from lever_plus.pipeline.texts import reader_of

    try:
        reader = reader_of(vlm)
        reader.check_instructions(instructions)
        for split in splits:
            reader.check(
                read_vqa_files(
                    root / split.questions,
                    root / split.annotations,
                    root / split.images,
                    split.image_name,
                    answers_per_question=source.answers_per_question,
                    allow_fallback=source.allow_fallback,
                )
            )
    except UserError as error:
        yield Item("data, texts", found=False, note=str(error))
        return
    here = isinstance(vlm, HuggingFaceVlmParams) and Path(vlm.path).is_dir()
    if here and reader.processor is None:
        yield Item("data, texts", found=False, note=f"the VLM can't read them: {reader.why}")
        return
    yield Item("data, texts", found=True, note=f"checked{reader.limits}")


def _get(where: str) -> str:
    return f"get it from {where}" if where else OWN


def _images(name: str, folder: Path, where: str) -> Item:
    count = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
    if count:
        return Item(name, found=True, note=f"{folder}, {count} files")
    lacks = "empty" if folder.is_dir() else "missing"
    return Item(name, found=False, note=f"{folder} is {lacks}: {_get(where)}")


def _vlm(params: Params) -> Iterator[Item]:
    vlm = params.vlm
    if isinstance(vlm, OpenAiVlmParams):
        yield from (_server(vlm, url) for url in vlm.urls)
        return
    if isinstance(vlm, PluginVlmParams):
        yield _own(vlm)
        return
    yield _model("VLM", vlm.path, "vlm.path")
    yield _device("VLM device", vlm.device)
    kind = str(_config(vlm.path).get("model_type", vlm.path))
    letters = re.sub(r"[\W_]", "", kind.lower())
    if any(name in letters for name in NEED_TORCHVISION):
        yield _torchvision()


def _optional(params: Params) -> Iterator[Item]:
    yield _package("dvc", "dvc repro", "pipeline")
    yield _package("pyarrow", "evaluate", "pipeline")
    yield _package("matplotlib", "report", "plots")
    if params.data.near_duplicate_bits is not None:
        yield _package("imagehash", "data.near_duplicate_bits", "pipeline")
    if isinstance(params.vlm, OpenAiVlmParams):
        yield _package("httpx2", "vlm.kind: openai", "openai")
    if params.pool.search == "approximate" and SAMPLERS[params.pool.sampler]:
        yield _package("faiss", "pool.search: approximate", "ann")
    if params.scoring.executor == "ray":
        yield _package("ray", "scoring.executor: ray", "ray")


def _package(name: str, needs_it: str, extra: str) -> Item:
    there = importlib.util.find_spec(name) is not None
    missing = f"missing, but {needs_it} needs it: pip install 'lever-plus[{extra}]'"
    return Item(name, there, "installed" if there else missing)


def _torchvision() -> Item:
    """Look for torchvision, and load it: a build for another version of torch does not load."""
    item = _package("torchvision", "the VLM's processor", "vision")
    if not item.found:
        return item
    import torch

    try:
        importlib.import_module("torchvision")
    except Exception as error:  # its libraries raise many kinds of errors
        built = f"install the version that is built for torch {torch.__version__}"
        return item._replace(found=False, note=f"does not load ({error}): {built}")
    return item


def _encoder(params: Params) -> Iterator[Item]:
    embed = params.embed
    yield _model("encoder", embed.path, "embed.path")
    yield _device("encoder device", embed.device)


def _model(name: str, path: str, key: str) -> Item:
    """Check a model's folder: its configuration, its processor, and all of its weight files."""
    try:
        folder = _folder(path)
    except UserError as error:
        return Item(name, found=False, note=str(error))
    get = (
        f"get a checkpoint from https://huggingface.co/models and set {key} to its folder; or set "
        f"{key} to a hub id, and HF_HUB_OFFLINE=0 if there is a network"
    )
    if not folder.is_dir():
        on_hub = path.count("/") == 1 and os.environ.get("HF_HUB_OFFLINE") == "0"
        note = f"{path}, a hub id: it will be fetched when it is first used" if on_hub else ""
        return Item(name, on_hub, note or f"{path} is not a folder: {get}")
    needed = ["config.json", "preprocessor_config.json|processor_config.json"]
    missing = [n for n in needed if not any((folder / part).is_file() for part in n.split("|"))]
    if missing:
        return Item(name, found=False, note=f"{folder} lacks {', '.join(missing)}: {get}")
    try:
        check_folder(folder, weights=True)
    except UserError as error:
        return Item(name, found=False, note=f"{error} Or {get}")
    return Item(name, found=True, note=f"{path}, {_config(path).get('model_type', 'model')}")


def _folder(path: str) -> Path:
    """Return a model's folder, even if missing; raise UserError for an unknown shipped model."""
    return find_folder(path, None) if path.startswith(SHIPPED) else Path(path)


def _config(path: str) -> dict[str, Any]:
    """Return the configuration of a model; {} if it is missing or damaged."""
    try:
        return read_object(_folder(path) / "config.json", "")
    except UserError:
        return {}


def _device(name: str, device: str) -> Item:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        return Item(name, found=False, note=f"{device!r} is not a device: write cpu or cuda")
    there = {"cpu": True, "cuda": torch.cuda.is_available()}.get(kind, False)
    if kind == "mps":
        there = torch.backends.mps.is_available()
    missing = f"{device} is not available: set it to cpu, or install a torch build for it"
    return Item(name, there, device if there else missing)


def _server(vlm: OpenAiVlmParams, url: str) -> Item:
    """Ask a server which models it offers, with the VLM's key and a time limit."""
    from lever_plus.vlm.backends.exchange import ServerError

    try:
        names = asyncio.run(_offered(vlm, url))
    except ServerError as error:
        start = f"start it, for example: vllm serve {vlm.model} (and correct vlm.url)"
        silent = error.status is None and error.passing
        note = f"{url} does not answer: {start}. {error}" if silent else str(error)
        return Item("VLM server", found=False, note=note)
    except UserError as error:
        return Item("VLM server", found=False, note=str(error))
    offered = f"{url} offers {quoted(', '.join(names)) or 'no named model'}"
    if vlm.model not in names:
        note = f"{offered}, but not {vlm.model}: correct vlm.model"
        return Item("VLM server", found=False, note=note)
    return _asked_server(vlm.model_copy(update={"url": url}), offered)


def _asked_server(vlm: OpenAiVlmParams, offered: str) -> Item:
    """Find out how a server that offers the model can be used."""
    from lever_plus.vlm.backends.start import Start

    bounds = {"patience_s": 0.0, "timeout_s": min(vlm.timeout_s, ANSWER_SECONDS)}
    once = vlm.model_copy(update=bounds)
    try:
        described = asyncio.run(Start().describe(once))
    except UserError as error:
        return Item(
            "VLM server", found=False, note=f"{offered}, but does not answer requests: {error}"
        )
    return Item("VLM server", found=True, note=f"{offered}; {described}")


async def _offered(vlm: OpenAiVlmParams, url: str) -> list[str]:
    from lever_plus.vlm.backends.exchange import Server
    from lever_plus.vlm.backends.replies import model_names

    async with Server(url, vlm.model, SERVER_SECONDS) as server:
        return model_names(await server.ask("models"))


def _own(vlm: PluginVlmParams) -> Item:
    """Look for the factory in the user's own code; what it makes can't be checked here."""
    from lever_plus.vlm.backends.plugin import find_factory

    try:
        find_factory(vlm)
    except UserError as error:
        return Item("VLM", found=False, note=str(error))
    return Item("VLM", found=True, note=f"your own, made by {vlm.factory}: not checked further")


def _machine(params: Params) -> Iterator[Item]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    note = f"{free:.0f} GB free here"
    low = f"only {note}: answers, and pools of {params.pool.size} examples, may need more"
    yield Item("disk", free > FREE_GIGABYTES, note if free > FREE_GIGABYTES else low)
