"""A model that does not load is explained: what is missing, and what to install."""

from pathlib import Path

import pytest
from transformers import AutoProcessor

from lever_plus.errors import UserError
from lever_plus.hub.loading import load_processor

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
