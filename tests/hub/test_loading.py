"""If a model cannot be loaded, the error says what is missing and what to install."""

from pathlib import Path

import pytest
from transformers import AutoProcessor, CLIPImageProcessor, CLIPImageProcessorPil

from lever_plus.errors import UserError
from lever_plus.hub.folder import MODELS, find_folder, folder_hash
from lever_plus.hub.loading import identify, load_processor

VIDEO = ImportError(
    "\nVideoProcessor requires the Torchvision library but it was not found in your environment. "
    "Check out the instructions on the\ninstallation page: https://pytorch.org."
)
IMAGE = ValueError(
    "Could not load any image processor class for x. The model configuration resolves to the "
    "following image processor classes: torchvision: XImageProcessor. None of these classes could "
    "be imported. Missing optional dependencies: torchvision. Please install the missing "
    "dependencies or select a backend that is available in your environment."
)
BUILT_FOR_ANOTHER = ModuleNotFoundError(
    "Could not import module 'AutoProcessor'. Are this object's"
)
BUILT_FOR_ANOTHER.__cause__ = RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            VIDEO,
            r"VideoProcessor requires .* environment: install .*'lever-plus\[vision\]'\)\.$",
        ),
        (IMAGE, r"loaded: it needs torchvision: install .*pip install 'lever-plus\[vision\]'\)\.$"),
        (
            BUILT_FOR_ANOTHER,
            r"torchvision does not load \(operator torchvision::nms does not exist\): install the "
            r"torchvision that is built for torch 2\..*, or pip uninstall torchvision\.$",
        ),
    ],
)
def test_a_processor_without_torchvision_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(UserError, match=said):
        load_processor(str(tmp_path), None)


def test_images_are_made_ready_by_pillow_though_torchvision_is_there() -> None:
    """Else pixels, and with them answers and features, would depend on what is installed."""
    pytest.importorskip("torchvision", reason="make install")
    chosen = type(AutoProcessor.from_pretrained(str(MODELS / "clip")).image_processor)
    assert chosen is CLIPImageProcessor
    processor = load_processor("shipped:clip", None)
    assert type(processor.image_processor) is CLIPImageProcessorPil
    assert processor.image_processor.size == {"shortest_edge": 32}


SHIPPED = sorted(path.parent.name for path in MODELS.glob("*/config.json"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_found_from_any_folder_and_known_by_its_content(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"shipped:{name}").mkdir()  # it means something else
    assert find_folder(f"shipped:{name}", None) == MODELS / name
    assert identify(f"shipped:{name}", None)[1] == folder_hash(MODELS / name)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "vlm/", "vlm/.", "../models/vlm", "..\\models\\vlm", "/etc", "C:vlm"),
        *("VLM", " vlm", "vlm\n", "vlm-9", "*", "vlm\0", "shipped:vlm", "vlm/config.json"),
    ],
)
def test_what_is_no_name_of_a_shipped_model_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=r"which has shipped:clip, shipped:vlm, shipped:vlm-2"):
        find_folder(f"shipped:{name}", None)


def test_a_package_without_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lever_plus.hub.folder.MODELS", tmp_path)
    with pytest.raises(UserError, match="which has none: install it again"):
        find_folder("shipped:vlm", None)
