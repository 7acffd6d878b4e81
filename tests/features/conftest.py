"""The features of the small world, as the tiny CLIP sees it, in files."""

from pathlib import Path

import pytest

from lever_plus.features.embeddings import Embeddings, embed_examples, read_embeddings
from lever_plus.features.encoder import ClipEncoder
from lever_plus.features.whitening import SPACE, FeatureSpace, read_feature_space
from tiny_world import Folders, World

VARIANCE = 0.99


@pytest.fixture(scope="session")
def clip(folders: Folders) -> ClipEncoder:
    return ClipEncoder(str(folders.clip), None, "cpu", 8)


@pytest.fixture(scope="session")
def embedded(world: World, clip: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    embed_examples(folder, folder / "cache", clip, world.splits, VARIANCE)
    return folder


@pytest.fixture(scope="session")
def embeddings(embedded: Path) -> Embeddings:
    return read_embeddings(embedded)


@pytest.fixture(scope="session")
def space(embedded: Path) -> FeatureSpace:
    return read_feature_space(embedded / SPACE)
