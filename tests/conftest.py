"""Fixtures that several subpackages share: a small embedded data set and tiny untrained models."""

import os

import pytest

# Two processes run the tests side by side, on two cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Test servers are on loopback, whatever proxy the machine has.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import beside_torch.sitecustomize  # noqa: F401  before anything imports torchvision
from lever_plus.config.file import load_params, overlay
from lever_plus.config.params import Params
from lever_plus.house_words.maker import make_embedded
from tiny_world import ROOT, Folders, World, read_world

# A slow machine is no failure.
hypothesis_settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("patient")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    make_embedded(folder, folder / "images", {"train": 24, "dev": 8, "test": 8}, 0.4, 64, seed=3)
    return read_world(folder)


@pytest.fixture(scope="session")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The project's params with the smoke preset merged in."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    overlay(path, ROOT / "presets" / "smoke.yaml")
    return load_params(path)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A tiny CLIP and a tiny VLM with random weights, as large as the shipped ones."""
    import torch

    from lever_plus.house_words import clip as tiny_clip
    from lever_plus.house_words import vlm as tiny_vlm
    from lever_plus.house_words.recipe.places import Places, read_recipe

    torch.manual_seed(0)
    recipe = read_recipe(Places(ROOT).params)
    root = tmp_path_factory.mktemp("models")
    processor = tiny_clip.make_processor()
    clip = tiny_clip.make_model(recipe.clip, processor)
    clip.save_pretrained(root / "clip")
    processor.save_pretrained(root / "clip")
    vlm_processor = tiny_vlm.make_processor(processor, tiny_clip.PATCH_SIZE)
    tiny_vlm.make_model(recipe.vlms["vlm"], clip, vlm_processor).save_pretrained(root / "vlm")
    vlm_processor.save_pretrained(root / "vlm")
    return Folders(root / "clip", root / "vlm")


pytest_plugins = [
    "bad_inputs",
    "mlflow_store",
    "postgres_server",
    "pytester",
    "tiers",
    "trained_selector",
]
