"""Fixtures that several rooms share: a small embedded data set and tiny untrained models."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from lever_plus.data.embedded.maker import image_file, make_embedded
from lever_plus.data.examples import SPLITS, Example
from lever_plus.data.vqa_files import read_vqa_files
from lever_plus.params import Params
from lever_plus.params_file import load_params, overlay

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class World:
    """A small data set on disk and its examples."""

    folder: Path
    splits: dict[str, list[Example]]

    @property
    def examples(self) -> dict[int, Example]:
        """All examples by id."""
        return {e.question_id: e for split in self.splits.values() for e in split}


def read_world(folder: Path) -> World:
    splits = {
        split: read_vqa_files(
            folder / f"questions_{split}.json",
            folder / f"annotations_{split}.json",
            lambda i, split=split: image_file(folder, split, i),
            10,
        )
        for split in SPLITS
    }
    return World(folder, splits)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    make_embedded(folder, {"train": 24, "dev": 8, "test": 8}, 0.4, 64, seed=3)
    return read_world(folder)


@pytest.fixture(scope="session")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The project's params with the smoke preset merged in."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    overlay(path, ROOT / "presets" / "smoke.yaml")
    return load_params(path)


@dataclass(frozen=True)
class Folders:
    """Hugging Face folders of tiny models."""

    clip: Path
    vlm: Path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Folders:
    """A tiny CLIP and a tiny VLM with random weights, saved as ordinary folders."""
    import torch

    from lever_plus.pretrain import clip as tiny_clip
    from lever_plus.pretrain import vlm as tiny_vlm

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    processor = tiny_clip.make_processor()
    clip = tiny_clip.make_model(params.pretrain.clip, processor)
    clip.save_pretrained(root / "clip")
    processor.save_pretrained(root / "clip")
    vlm_processor = tiny_vlm.make_processor(processor, tiny_clip.PATCH_SIZE)
    tiny_vlm.make_model(params.pretrain.vlm, clip, vlm_processor).save_pretrained(root / "vlm")
    vlm_processor.save_pretrained(root / "vlm")
    return Folders(root / "clip", root / "vlm")
