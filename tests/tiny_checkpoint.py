"""A selector's checkpoint for the tiny CLIP, with random weights, for tests that use one."""

from dataclasses import replace
from pathlib import Path

import torch

from lever_plus.data.examples import Example
from lever_plus.features.embeddings import embed_examples
from lever_plus.features.encoder import ClipEncoder
from lever_plus.features.whitening import SPACE, read_feature_space
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.network import PolicyConfig
from lever_plus.vlm.request import VlmIdentity
from tiny_world import Folders, World, random_policy

VARIANCE = 0.999
IDENTITY: VlmIdentity = {
    "model": "Tiny",
    "revision": "r" * 64,
    "dtype": "float32",
    "prompt_hash": "p" * 64,
    "generation": "one token",
}


def embed(folder: Path, world: World, folders: Folders) -> None:
    """Write the features of a world's examples and their space, as the pipeline does."""
    encoder = ClipEncoder(str(folders.clip), None, "cpu", 24)
    embed_examples(folder, folder / "cache", encoder, world.splits, VARIANCE)


def make_checkpoint(
    folder: Path, world: World, folders: Folders, shots: int = 4, stops_after: int | None = None
) -> Path:
    """Write a checkpoint whose choices are far from uniform; return its folder.

    With `stops_after` it knows prices up to .2, and stops after so many picks at each of them.
    """
    embed(folder / "features", world, folders)
    space = read_feature_space(folder / "features" / SPACE)
    sizes = space.query_size, space.candidate_size
    plain = PolicyConfig("stateful", *sizes, hidden=8, shots=shots)
    highest = 0.0 if stops_after is None else 0.2
    policy = random_policy(replace(plain, highest_price=highest)).float()
    if policy.stop is not None:
        with torch.no_grad():
            policy.stop.last.weight.zero_()
            policy.stop.last.bias.copy_(torch.arange(shots) - (stops_after or 0) + 0.5)
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=space.sha256,
        encoder=EncoderFacts(sha256=space.encoder, path=str(folders.clip)),
        pool_sha256="0" * 64,
        vlm=IDENTITY,
        prompt={"style": "chat", "instruction": ""},
        training={"stage": "rce", "method": "rce", "seed": 1},
    )
    save_checkpoint(folder / "checkpoint", policy, space, config)
    return folder / "checkpoint"


def pool_lines(examples: list[Example]) -> list[dict[str, str]]:
    """Return examples as the lines of a pool file; images by absolute paths."""
    return [{"image": e.image, "question": e.question, "answer": e.answer} for e in examples]
