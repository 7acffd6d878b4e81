"""A selector with a random policy, saved as a training would save it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lever_plus.data.examples import Example
from lever_plus.features.encoder import ClipEncoder, InMemory
from lever_plus.features.sources import EncodedFeatures
from lever_plus.features.whitening import FeatureSpace, fit_whitening
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import PolicyConfig
from lever_plus.selectors.learned import LearnedSelector
from tiny_world import Folders, World

SHOTS = 2


@pytest.fixture(scope="session")
def clip(folders: Folders) -> ClipEncoder:
    return ClipEncoder(str(folders.clip), None, "cpu", 8)


@pytest.fixture(scope="session")
def trained(world: World, clip: ClipEncoder) -> LearnedSelector:
    """A random policy with clear preferences in the feature space of the training examples."""
    train = world.splits["train"]
    unit = {
        "question": clip.texts([e.question for e in train], InMemory()),
        "image": clip.images([e.image for e in train], InMemory()),
        "answer": clip.texts([e.answer for e in train], InMemory()),
    }
    whitening = {part: fit_whitening(rows, 0.99) for part, rows in unit.items()}
    space = FeatureSpace(clip.identity, whitening)
    torch.manual_seed(0)
    sizes = space.query_size, space.candidate_size
    policy = build_policy(PolicyConfig("stateful", *sizes, hidden=16, shots=SHOTS))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return LearnedSelector(policy, EncodedFeatures(space, clip))


@pytest.fixture
def checkpoint(trained: LearnedSelector, folders: Folders, tmp_path: Path) -> Path:
    return write_checkpoint(trained, folders, tmp_path / "selector")


def write_checkpoint(trained: LearnedSelector, folders: Folders, folder: Path) -> Path:
    """Write the selector's checkpoint to a folder, and return that."""
    space = trained.features._space
    config = CheckpointConfig(
        architecture=trained.policy.config,
        feature_space=space.sha256,
        encoder=EncoderFacts(sha256=space.encoder, path=str(folders.clip)),
        pool_sha256="p" * 64,
        vlm={"model": "m", "revision": "r", "dtype": "d", "prompt_hash": "h", "generation": "g"},
        prompt={"style": "qa", "instruction": ""},
        training={},
    )
    save_checkpoint(folder, trained.policy, space, config)
    return folder


def written_pool(path: Path, pool: Sequence[Example]) -> Path:
    """Write a pool as a user would, with the ids that it has."""
    names = ("question_id", "image_id", "image", "question", "answer")
    rows = [{name: getattr(example, name) for name in names} for example in pool]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
