"""Untrusted model folders: no code runs, no file outside is read, and damage is named."""

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from doors import Bad, try_all
from safetensors.torch import load_file, save_file
from texts import changed, damaged

from fuzz.test_fuzz_tensors import headers
from lever_plus.errors import UserError
from lever_plus.hub.folder import folder_hash
from lever_plus.hub.loading import identify, load_model, load_processor
from tiny_world import Folders

CODE = "import pathlib\npathlib.Path(__file__).with_name('ran').write_text('')\n"
CLASSES = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")


@pytest.fixture
def folder(folders: Folders, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP."""
    return Path(shutil.copytree(folders.clip, tmp_path / "clip"))


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr("builtins.input", ask)


def weights(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return a folder's weights in another type."""
    found = load_file(folder / "model.safetensors")
    return {name: tensor.to(dtype) for name, tensor in found.items()}


def identified(folder: Path, name: str, content: bytes | None, file: str) -> Bad:
    """Give `identify` a folder with one file changed; if it takes it, the hash must differ."""

    def run() -> None:
        path = folder / file
        before = path.read_bytes() if path.exists() else None
        hashed = folder_hash(folder)
        try:
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            _, found = identify(str(folder), None)
            assert found != hashed or content == before
        finally:
            path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before)

    return Bad(f"{file}: {name}", run, ("clip",))


def files(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes | None, str]]:
    """Yield (what is wrong, content, file): configurations, indices, headers of weights."""
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        whole = (folder / file).read_bytes()
        for name, content in changed(json.loads(whole), rng, 60):
            yield name, json.dumps(content).encode(), file
        for name, raw in damaged(whole, rng, 30):
            yield name, raw, file
        yield "deep", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, file
    config = json.loads((folder / "config.json").read_bytes())
    for key, value in (
        ("num_hidden_layers", 10**9),
        ("transformers_weights", "../other/model.safetensors"),
        ("attn_implementation", "someone/kernels"),
        ("_attn_implementation", "someone/kernels@main"),
    ):
        yield key, json.dumps({**config, key: value}).encode(), "config.json"
    whole = (folder / "model.safetensors").read_bytes()
    for name, raw in (*damaged(whole[:5_000], rng, 40), *headers(whole, rng, 80)):
        yield name, raw, "model.safetensors"
    yield "missing", None, "model.safetensors"
    yield "an adapter", b"{}", "adapter_config.json"


def test_folders_are_identified_or_refused(folder: Path) -> None:
    before = sorted(folder.iterdir())
    try_all(
        "model folders", (identified(folder, *each) for each in files(folder, random.Random(1)))
    )
    assert sorted(folder.iterdir()) == before


def test_processors_are_loaded_or_refused(folder: Path) -> None:
    """This holds whatever their libraries raise, including a tokenizer's panic."""

    def bad(file: str, name: str, content: bytes) -> Bad:
        def run() -> None:
            before = (folder / file).read_bytes()
            (folder / file).write_bytes(content)
            try:
                processor = load_processor(str(folder), None)
                assert type(processor).__module__.startswith("transformers.")
            finally:
                (folder / file).write_bytes(before)

        return Bad(f"{file}: {name}", run, ("clip",))

    def inputs() -> Iterator[Bad]:
        rng = random.Random(2)
        for file in ("processor_config.json", "tokenizer_config.json", "tokenizer.json"):
            whole = (folder / file).read_bytes()
            for name, content in changed(json.loads(whole), rng, 25):
                yield bad(file, name, json.dumps(content).encode())
            for each in damaged(whole, rng, 14):
                yield bad(file, *each)

    try_all("processors", inputs())


@pytest.mark.parametrize("type_", [None, "unheard-of"])
def test_no_code_of_a_folder_runs(folder: Path, type_: str | None) -> None:
    """This holds whichever file names the code, and for whichever class."""
    (folder / "code.py").write_text(CODE, encoding="utf-8")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE, encoding="utf-8")
    named = {name: f"code.{name}" for name in CLASSES}
    modules = {*sys.modules}
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_bytes())
        content["auto_map"] = named
        if type_ and file == "config.json":
            content["model_type"] = type_
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    def everything() -> None:
        from transformers import AutoModel

        load_processor(str(folder), None)
        identify(str(folder), None)
        load_model(AutoModel, str(folder), None, "cpu")

    if type_ is None:
        everything()  # transformers has all that it needs
    else:
        with pytest.raises(UserError, match=r"clip cannot be loaded"):
            everything()
    assert not list(folder.rglob("ran"))
    assert not [name for name in {*sys.modules} - modules if name.endswith(".code")]


INDEX: dict[str, Any] = {
    "outside": {"weight_map": {"a": "../model.safetensors"}},
    "absolute": {"weight_map": {"a": "/tmp/model.safetensors"}},
    "a pickle": {"weight_map": {"a": "pytorch_model.bin"}},
    "missing": {"weight_map": {"a": "model-00001-of-00002.safetensors"}},
    "no text": {"weight_map": {"a": 1}},
    "a list": {"weight_map": ["a"]},
    "nothing": {},
}


@pytest.mark.parametrize("index", INDEX.values(), ids=INDEX)
def test_an_index_names_files_beside_it_alone(folder: Path, index: Any) -> None:
    shutil.copy(folder / "model.safetensors", folder.parent)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UserError, match=r"clip.*index"):
        identify(str(folder), None)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"])
def test_pickles_are_not_read(folder: Path, name: str) -> None:
    """Beside safetensors they are ignored; without them they are refused."""
    before = identify(str(folder), None)
    (folder / name).write_bytes(b"\x80\x04.")
    assert identify(str(folder), None) == before
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"clip has its weights in {name}.*save the model as"):
        identify(str(folder), None)


def change(tensors: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    """Return weights that cannot be used."""
    name = "visual_projection.weight"
    match case:
        case "nan" | "inf" | "-inf":
            tensors[name].view(-1)[-1] = float(case)
        case "missing":
            del tensors[name]
        case "more":
            tensors["another.weight"] = torch.ones(1)
        case "shorter":
            tensors[name] = tensors[name][:-1].clone()
        case _:
            tensors = {n: tensor.to(getattr(torch, case)) for n, tensor in tensors.items()}
    return tensors


CASES = (
    "nan",
    "inf",
    "-inf",
    "missing",
    "more",
    "shorter",
    "int8",
    "int64",
    "bool",
    "float8_e4m3fn",
)


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_none_are_refused(folder: Path, case: str) -> None:
    from transformers import AutoModel

    save_file(change(weights(folder), case), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"clip.*(weight|keys|cannot be loaded)"):
        load_model(AutoModel, str(folder), None, "cpu")


def test_every_file_that_is_read_is_in_the_hash(folder: Path, tmp_path: Path) -> None:
    """This holds under any name. Where the folder is and when it was written do not count."""
    hashes = {folder_hash(folder)}
    assert folder_hash(Path(shutil.copytree(folder, tmp_path / "moved"))) in hashes
    (folder / "additional_chat_templates").mkdir()
    for name in (
        *("added_tokens.json", "chat_template.jinja", "chat_template.json", "merges.txt"),
        *("qwen.tiktoken", "vocab.bpe", "source.spm", "tokenizer.model", "model-2.safetensors"),
        *("generation_config.json", "additional_chat_templates/tools.jinja"),
    ):
        (folder / name).write_text("1", encoding="utf-8")
        hashes.add(folder_hash(folder))
        (folder / name).write_text("2", encoding="utf-8")
        hashes.add(folder_hash(folder))
    assert len(hashes) == 1 + 2 * 11
    for name in ("README.md", "LICENSE", ".gitattributes", "code.py", "pytorch_model.bin"):
        (folder / name).write_text("1", encoding="utf-8")
        assert folder_hash(folder) in hashes


def test_folders_of_further_tokenizers_are_in_the_hash(folder: Path) -> None:
    """Some processors load them, as InstructBLIP's does; other folders are never read."""
    hashes = {folder_hash(folder)}
    for name in ("onnx", "checkpoint-500"):
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_text("1", encoding="utf-8")
        assert folder_hash(folder) in hashes
    (folder / "qformer_tokenizer" / "additional_chat_templates").mkdir(parents=True)
    for name in ("tokenizer.json", "vocab.txt", "additional_chat_templates/a.jinja"):
        for content in "12":
            (folder / "qformer_tokenizer" / name).write_text(content, encoding="utf-8")
            hashes.add(folder_hash(folder))
    assert len(hashes) == 1 + 2 * 3


@pytest.mark.parametrize("place", ["", "qformer_tokenizer"])
@pytest.mark.parametrize(
    "names", [["../other/tokenizer.4.0.json"], ["/tmp/tokenizer.4.0.json"], "sub/tokenizer.4.json"]
)
def test_a_tokenizer_elsewhere_is_refused(folder: Path, place: str, names: Any) -> None:
    path = folder / place / "tokenizer_config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"fast_tokenizer_files": names}), encoding="utf-8")
    with pytest.raises(UserError, match=r"tokenizer_config.json: fast_tokenizer_files names files"):
        identify(str(folder), None)


def test_versions_of_a_tokenizer_beside_it_are_taken(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    content = {**json.loads(path.read_bytes()), "fast_tokenizer_files": ["tokenizer.4.0.json"]}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert identify(str(folder), None)[0] == "CLIPModel"


@pytest.mark.parametrize("named", [["a\nb"], ["\x1b[2J"], [""], [3], "CLIPModel", [], None])
def test_a_model_s_name_can_be_shown(folder: Path, named: Any) -> None:
    """Stored answers are kept under this name."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "architectures": named}))
    assert identify(str(folder), None)[0] == "CLIPConfig"


def test_links_are_hashed_by_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    """The hub's cache consists of links."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    before = folder_hash(linked)
    assert before == folder_hash(folder)
    content = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**content, "a": 1}), encoding="utf-8")
    assert folder_hash(linked) != before


def test_a_folder_that_was_changed_since_is_not_loaded(folder: Path) -> None:
    from transformers import AutoModel

    _, identity = identify(str(folder), None)
    tensors = weights(folder)
    tensors["visual_projection.weight"].mul_(2)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"was changed since it was identified"):
        load_model(AutoModel, str(folder), None, "cpu", identity=identity)


@pytest.mark.parametrize("path", ["models/none", "none", "a/b/c", "~/none", "", "a\0b", "../none"])
def test_a_path_that_does_not_exist_is_asked_for_nowhere(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"holds no model"):
        identify(path, None)
