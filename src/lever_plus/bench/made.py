"""A selector of the pipeline's size with random weights, made for benchmarks with pool and queries.

Its choices mean nothing; only its speed counts. Its features are as long as the encoder's own,
whereas a real whitening may leave out directions and make them shorter.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lever_plus.config.params import Params
from lever_plus.data.examples import Example, Query
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.features.encoder import ClipEncoder, InMemory
from lever_plus.features.whitening import PARTS, FeatureSpace, Whitening
from lever_plus.house_words.maker import IMAGE_NAME, make_embedded
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.vlm.request import VlmIdentity

IMAGE_SIZE = 224


class Made(NamedTuple):
    """A selector with random weights, a pool and queries.

    Attributes:
        checkpoint: Folder of the selector.
        pool: Examples to choose from.
        queries: Queries that are not in the pool.
    """

    checkpoint: Path
    pool: list[Example]
    queries: list[Query]


def make(folder: Path, params: Params, pool: int, queries: int) -> Made:
    """Make selector, pool and queries in a folder.

    Args:
        folder: Where images, questions and the checkpoint go.
        params: Parameters of the pipeline; policy, encoder and pointer length follow them.
        pool: Number of examples in the pool.
        queries: Number of queries.

    Raises:
        UserError: The encoder is missing.
    """
    make_embedded(
        folder, folder / "images", {"train": pool, "test": queries}, 0.25, IMAGE_SIZE, seed=1
    )
    train, test = (
        with_image_hashes(
            read_vqa_files(
                folder / f"questions_{split}.json",
                folder / f"annotations_{split}.json",
                folder / "images" / split,
                IMAGE_NAME,
            )
        )
        for split in ("train", "test")
    )
    encoder = ClipEncoder(params.embed.path, params.embed.revision, "cpu", params.embed.batch_size)
    space = _whole_space(encoder)
    torch.manual_seed(0)
    sizes = {"query_size": space.query_size, "candidate_size": space.candidate_size}
    policy = build_policy(configure(params.policy, **sizes, shots=params.pointer.shots))
    nothing = VlmIdentity(model="", revision="", dtype="", prompt_hash="", generation="")
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=space.sha256,
        encoder=EncoderFacts(
            sha256=encoder.identity, path=params.embed.path, revision=params.embed.revision
        ),
        pool_sha256="",
        vlm=nothing,
        prompt={"style": "chat", "instruction": ""},
        training={},
    )
    save_checkpoint(folder / "checkpoint", policy, space, config)
    return Made(folder / "checkpoint", train, [example.query for example in test])


def _whole_space(encoder: ClipEncoder) -> FeatureSpace:
    """Return a feature space that does not change the encoder's features."""
    size = encoder.texts(["What is shown?"], InMemory()).shape[1]
    one, zero = np.ones(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    same = Whitening(zero, np.eye(size, dtype=np.float32), one)
    return FeatureSpace(encoder.identity, dict.fromkeys(PARTS, same))


def percentiles(seconds: list[float], name: str) -> dict[str, float]:
    """Return p50 and p95 of times in seconds as {"NAME_p50_ms": ..., "NAME_p95_ms": ...}."""
    found = np.percentile(seconds, [50, 95])
    return {
        f"{name}_p{p}_ms": round(1000 * float(value), 2)
        for p, value in zip((50, 95), found, strict=True)
    }
