"""The doctor names every missing thing and where to get it, and nothing that is there."""

import importlib
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lever_plus.cli.doctor import Item, examine
from lever_plus.config.file import load_params, load_with_preset, overlay
from lever_plus.config.params import Params
from lever_plus.config.vlm import HuggingFaceVlmParams, PluginVlmParams
from tiny_world import ROOT, Folders
from vlm.protocol_server import NAME, Vlm, serve

PRESETS = ROOT / "presets"


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with enough room, whatever this machine has."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=100e9))


def preset(name: str) -> Params:
    return load_with_preset(ROOT / "params.yaml", PRESETS / name)


def missing(items: list[Item]) -> dict[str, str]:
    return {item.name: item.note for item in items if not item.found}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("okvqa-qwen2.5-vl-3b.yaml", "okvqa.allenai.org"),
        ("okvqa-qwen3-vl-4b.yaml", "okvqa.allenai.org"),
        ("vqav2-qwen2.5-vl-3b.yaml", "visualqa"),
        ("vqav2-qwen3-vl-4b.yaml", "visualqa"),
    ],
)
def test_on_a_machine_without_the_files_everything_is_named(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = missing(examine(preset(name)))
    for split in ("train", "test"):
        for kind in ("questions", "annotations"):
            assert where in notes[f"data, {split} {kind}"]
        assert "cocodataset.org" in notes[f"data, {split} images"]
    assert "huggingface.co" in notes["VLM"]
    assert "embed.path" in notes["encoder"]


@pytest.mark.parametrize(("data", "size"), [("okvqa", "2b"), ("vqav2", "8b")])
def test_other_sizes_and_a_server_come_after_a_preset_with_data(
    data: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
    overlay(path, PRESETS / f"{data}-qwen3-vl-4b.yaml")
    overlay(path, PRESETS / f"qwen3-vl-{size}.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    here = examine(load_params(path))
    assert f"models/Qwen3-VL-{size.upper()}-Instruct is not a folder" in missing(here)["VLM"]
    assert "lever-plus[vision]" in missing(here)["torchvision"]
    before = load_params(path).data
    overlay(path, PRESETS / "vllm.yaml")
    server = load_params(path)
    assert server.data == before
    assert "vllm serve Qwen/Qwen3-VL-4B-Instruct" in missing(examine(server))["VLM server"]


def test_the_embedded_run_lacks_nothing(params: Params) -> None:
    assert missing(examine(params)) == {}


def test_a_shipped_model_that_there_is_not_is_named(params: Params) -> None:
    embed = params.embed.model_copy(update={"path": "shipped:clap"})
    other = with_vlm(params, path="shipped:../x").model_copy(update={"embed": embed})
    notes = missing(examine(other))
    assert notes.keys() == {"VLM", "encoder"}
    assert "shipped:../x is not a model of the package, which has shipped:clip" in notes["VLM"]
    assert "shipped:clap is not a model" in notes["encoder"]


def with_vlm(params: Params, **changes: object) -> Params:
    assert isinstance(params.vlm, HuggingFaceVlmParams)
    return params.model_copy(update={"vlm": params.vlm.model_copy(update=changes)})


def test_packages_that_a_setting_needs_are_named(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = params.pool.model_copy(update={"sampler": "text", "search": "approximate"})
    scoring = params.scoring.model_copy(update={"executor": "ray"})
    data = params.data.model_copy(update={"near_duplicate_bits": 4})
    wanted = params.model_copy(update={"pool": pool, "scoring": scoring, "data": data})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    notes = missing(examine(wanted))
    extras = {"faiss": "ann", "ray": "ray", "imagehash": "pipeline"}
    always = {"dvc": "pipeline", "pyarrow": "pipeline", "matplotlib": "plots"}
    for package, extra in (extras | always).items():
        assert f"lever-plus[{extra}]" in notes[package]
    assert missing(examine(params)).keys() == always.keys()


def test_a_folder_with_a_whole_checkpoint_is_found(params: Params, folders: Folders) -> None:
    assert "VLM" not in missing(examine(with_vlm(params, path=str(folders.vlm))))


def test_a_missing_weight_file_is_named(params: Params, folders: Folders, tmp_path: Path) -> None:
    for path in folders.vlm.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    note = missing(examine(with_vlm(params, path=str(tmp_path))))["VLM"]
    assert "has no model.safetensors" in note


@pytest.mark.parametrize(
    "index",
    [
        *('{"weight_map": ', "[]", "{}", "[" * 100_000, '{"weight_map": []}'),
        *('{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["x"]}}', '{"weight_map": "x"}'),
        *('{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "x.safetensors"}}'),
    ],
)
def test_a_damaged_index_and_a_mistyped_device_are_named(
    params: Params, folders: Folders, tmp_path: Path, index: str
) -> None:
    for path in folders.vlm.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(index)
    notes = missing(examine(with_vlm(params, path=str(tmp_path), device="cudda")))
    assert "model.safetensors.index.json" in notes["VLM"]
    assert "https://huggingface.co/models" in notes["VLM"]
    assert "'cudda' is not a device" in notes["VLM device"]


def test_a_damaged_configuration_is_named(params: Params, folders: Folders, tmp_path: Path) -> None:
    for path in folders.vlm.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for content in ("", "[1]", "[" * 100_000, '{"model_type": NaN}', "\xff"):
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
        notes = missing(examine(with_vlm(params, path=str(tmp_path))))
        assert "config.json" in notes["VLM"]


def test_a_device_that_is_not_there_is_named(params: Params, folders: Folders) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test expects to be missing")
    note = missing(examine(with_vlm(params, path=str(folders.vlm), device="cuda")))["VLM device"]
    assert "set it to cpu" in note


def test_a_server_is_asked_which_models_it_offers() -> None:
    params = preset("vllm.yaml")
    with serve(Vlm(None, None, echoes=True)) as url:
        there = params.vlm.model_copy(update={"url": url, "model": NAME})
        assert missing(examine(params.model_copy(update={"vlm": there}))) == {}
        other = params.vlm.model_copy(update={"url": url})
        note = missing(examine(params.model_copy(update={"vlm": other})))["VLM server"]
        assert f"offers {NAME}, but not Qwen" in note
        both = params.vlm.model_copy(update={"url": [url, "http://127.0.0.1:9/v1"], "model": NAME})
        note = missing(examine(params.model_copy(update={"vlm": both})))["VLM server"]
        assert note.startswith("http://127.0.0.1:9/v1 does not answer")
    gone = missing(examine(params.model_copy(update={"vlm": other})))["VLM server"]
    assert "does not answer" in gone
    assert "vllm serve" in gone


def test_a_vlm_of_the_user_s_own_is_named_as_such(params: Params) -> None:
    own = {"kind": "plugin", "factory": "vlm.test_open:Parrot", "options": {"word": "x"}}

    def item(**changes: object) -> Item:
        vlm = PluginVlmParams.model_validate({**own, **changes})
        items = examine(params.model_copy(update={"vlm": vlm}))
        (found,) = [item for item in items if item.name.startswith("VLM")]
        return found

    assert item() == Item(
        "VLM", True, "your own, made by vlm.test_open:Parrot: not checked further"
    )
    assert "vlm.test_open has no Parot" in missing([item(factory="vlm.test_open:Parot")])["VLM"]
    assert "vlm.options: " in missing([item(options={"wrod": "x"})])["VLM"]


def test_a_torchvision_that_was_built_for_another_torch_is_named(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed, but that is not enough: transformers could not load it."""

    def fail(_name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    monkeypatch.setattr(importlib, "import_module", fail)
    for path in ("models/Qwen3-VL-4B-Instruct", "models/glm-4.6v-flash", "models/gemma-4-e4b-it"):
        note = missing(examine(with_vlm(params, path=path)))["torchvision"]
        assert "does not load (operator torchvision::nms does not exist)" in note
        assert "built for torch 2." in note


def test_a_full_disk_is_named(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1e9))
    assert missing(examine(params))["disk"].startswith("only 1 GB free here")
