"""A model that does not load is explained: what is missing, and what to install."""

from pathlib import Path

import pytest
from transformers import AutoProcessor

from lever_plus.errors import UserError
from lever_plus.hub.folder import MODELS, find_folder, folder_hash
from lever_plus.hub.loading import identify, load_processor

TORCHVISION = (
    "\nVideoProcessor requires the Torchvision library but it was not found in your environment. "
    "Check out the instructions on the\ninstallation page: https://pytorch.org."
)


def test_a_processor_without_its_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError(TORCHVISION)

    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(UserError) as caught:
        load_processor(AutoProcessor, str(tmp_path), None)
    assert str(caught.value) == (
        f"{tmp_path} cannot be loaded: VideoProcessor requires the Torchvision library but it was "
        "not found in your environment: pip install 'lever-plus[vision]'."
    )


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
