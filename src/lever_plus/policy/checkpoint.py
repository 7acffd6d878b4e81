"""Checkpoints: folders that hold all that a selector needs, besides its encoder.

    policy.safetensors          the weights
    feature_space.safetensors   the encoder's hash and the whitening, which give inputs a meaning
    config.json                 architecture, shots, prompt, VLM, pools, facts about the training;
                                hashes of both files above
    README.md                   a model card

Loading is strict: missing weights, numbers that are not finite, another feature space and, in an
experiment, other pools are refused. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from lever_plus.errors import UserError
from lever_plus.features.whitening import SPACE, FeatureSpace, read_feature_space
from lever_plus.files.checking import Row
from lever_plus.files.json_files import parse_json
from lever_plus.files.reading import is_there, read_bytes
from lever_plus.files.tensors import read_header, read_tensors, tensors_hash
from lever_plus.files.writing import replacing, write_json, write_text
from lever_plus.policy.card import card
from lever_plus.policy.files import CARD, CONFIG, POLICY
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig
from lever_plus.vlm.request import VlmIdentity

FORMAT: Final = "lever-plus-selector-3"
ADVICE: Final = "restore the whole folder (`dvc checkout`), or train the policy again"
LARGEST: Final = 2**20
"""Bytes of config.json."""


class EncoderFacts(Row):
    """The encoder that makes the features.

    Attributes:
        sha256: Its identity (`hub.loading.identify`).
        path: The folder or hub id from which it was loaded when the policy was trained.
        revision: The commit, if `path` is a hub id.
    """

    sha256: str
    path: str
    revision: str | None = None


class CheckpointConfig(Row):
    """The content of config.json.

    Attributes:
        format: Version of the format.
        architecture: Architecture of the policy.
        policy: SHA-256 of architecture and weights, which `save_checkpoint` sets; None in older
            checkpoints.
        feature_space: SHA-256 of the feature space.
        encoder: The encoder.
        pool_sha256: SHA-256 of the pools that the policy was trained with.
        vlm: The frozen VLM that it was trained with.
        prompt: Style and instruction of the prompts.
        training: Facts about the training, for people.
    """

    format: str = FORMAT
    architecture: PolicyConfig
    policy: str | None = None
    feature_space: str
    encoder: EncoderFacts
    pool_sha256: str
    vlm: VlmIdentity
    prompt: dict[str, str]
    training: dict[str, Any]


class Checkpoint(NamedTuple):
    """A loaded checkpoint; the policy is in eval mode."""

    policy: Policy
    space: FeatureSpace
    config: CheckpointConfig


def save_checkpoint(
    folder: Path, policy: Policy, space: FeatureSpace, config: CheckpointConfig
) -> None:
    """Write a checkpoint; equal arguments give equal bytes.

    Old weights are removed first and the new ones written last, so that half a checkpoint cannot be
    loaded.

    Raises:
        UserError: The folder can't be written to, or the disk is full.
    """
    weights = policy.state_dict()
    facts = {**config.model_dump(mode="json"), "policy": _policy_hash(config.architecture, weights)}
    with replacing(folder / POLICY) as fresh:
        (folder / POLICY).unlink(missing_ok=True)
        space.save(folder / SPACE)
        write_json(folder / CONFIG, facts)
        parameters = sum(parameter.numel() for parameter in policy.parameters())
        write_text(folder / CARD, card(facts, parameters))
        save_file(weights, fresh, metadata={"format": FORMAT})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint.

    Raises:
        UserError: It is missing, damaged or of another version, or its files do not belong
            together.
    """
    config = read_config(folder)
    space = read_feature_space(folder / SPACE)
    if (space.sha256, space.encoder) != (config.feature_space, config.encoder.sha256):
        raise UserError(
            f"{folder}: {SPACE} is not the feature space that the policy was trained in: {ADVICE}."
        )
    sizes = (space.query_size, space.candidate_size)
    if sizes != (config.architecture.query_size, config.architecture.candidate_size):
        raise UserError(f"{folder}: the policy and its feature space differ in size: {ADVICE}.")
    weights = _weights(folder / POLICY, config)
    policy = build_policy(config.architecture)
    policy.load_state_dict(weights, strict=True)
    return Checkpoint(policy.eval(), space, config)


def load_policy(
    folder: Path, *, pool_sha256: str, space_sha256: str, allow_other_pool: bool = False
) -> Policy:
    """Load the policy of an experiment's checkpoint in eval mode.

    Args:
        folder: The checkpoint.
        pool_sha256: Hash of the pools that the policy is about to choose from.
        space_sha256: Hash of the feature space that its inputs will be in.
        allow_other_pool: Accept other pools than it was trained with, to measure transfer.

    Raises:
        UserError: It cannot be loaded, or was trained with other pools or in another feature space.
    """
    policy, _, config = load_checkpoint(folder)
    if config.pool_sha256 != pool_sha256 and not allow_other_pool:
        raise UserError(
            f"{folder} was trained on pools {config.pool_sha256[:12]}, not {pool_sha256[:12]}: "
            "train it again (`dvc repro`), or pass allow_other_pool=True to measure transfer."
        )
    if config.feature_space != space_sha256:
        raise UserError(
            f"{folder} was trained in feature space {config.feature_space[:12]}, not "
            f"{space_sha256[:12]} (another encoder, or another whitening): run `dvc repro`."
        )
    return policy


def read_config(folder: Path) -> CheckpointConfig:
    """Read config.json of a checkpoint; UserError as `load_checkpoint`."""
    path = folder / CONFIG
    if not is_there(path):
        if is_there(folder / POLICY):
            raise UserError(
                f"{folder} holds a checkpoint of an earlier version (it has no {CONFIG}), which "
                "can no longer be used: train it again (`dvc repro`)."
            )
        raise UserError(
            f"{folder} holds no checkpoint: name another folder, or run the stage that trains it "
            "(`dvc repro`)."
        )
    content = read_bytes(path, ADVICE, limit=LARGEST)
    parse_json(content, str(path), ADVICE)
    try:
        config = CheckpointConfig.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path} is not the configuration of a checkpoint ({place}: {first['msg']}): {ADVICE}."
        ) from error
    if config.format != FORMAT:
        raise UserError(f"{path} has format {config.format!r}, not {FORMAT!r}: train it again.")
    return config


def _weights(path: Path, config: CheckpointConfig) -> dict[str, torch.Tensor]:
    """Read the weights of a policy; a wrong size in its configuration allocates no memory."""
    found = {name: each.shape for name, each in read_header(path, ADVICE).tensors.items()}
    with torch.device("meta"):
        policy = build_policy(config.architecture)
    wanted = {name: tuple(weight.shape) for name, weight in policy.state_dict().items()}
    differing = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
    if differing:
        name = differing[0]
        raise UserError(
            f"{path} holds other weights than {CONFIG} describes ({name}: {found.get(name)}, not "
            f"{wanted.get(name)}): {ADVICE}."
        )
    weights, _ = read_tensors(path, ADVICE, {"F32"})
    if config.policy not in (None, _policy_hash(config.architecture, weights)):
        raise UserError(
            f"{path} holds the weights of another checkpoint, or {CONFIG} was changed: {ADVICE}."
        )
    return weights


def _policy_hash(architecture: PolicyConfig, weights: Mapping[str, torch.Tensor]) -> str:
    parts = json.dumps([architecture.as_dict(), tensors_hash(weights)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()
