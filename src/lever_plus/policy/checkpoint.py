"""Checkpoints: folders that hold all that a selector needs to be used anywhere.

    policy.safetensors          the weights
    feature_space.safetensors   encoder's hash and whitening: what the policy's inputs mean
    config.json                 architecture, shots, prompt, VLM, pools, training facts
    README.md                   a model card

Loading is strict: half-loaded weights, numbers that are not finite, another feature space and, in
an experiment, other pools are refused. Nothing is unpickled.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lever_plus.errors import UserError
from lever_plus.features.whitening import SPACE, FeatureSpace, read_feature_space
from lever_plus.policy.card import card
from lever_plus.policy.files import CARD, CONFIG, POLICY
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig
from lever_plus.vlm.request import VlmIdentity

FORMAT: Final = "lever-plus-selector-3"


class EncoderFacts(BaseModel):
    """Which encoder makes the features.

    sha256: of its folder; path, revision: where it was when the policy was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    path: str
    revision: str | None = None


class CheckpointConfig(BaseModel):
    """What config.json says.

    architecture: Of the policy; feature_space: its sha256; pool_sha256: of the pools that it was
    trained with; vlm: the frozen VLM that it was trained with; prompt: style and instruction;
    training: how it was trained, free facts for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    architecture: PolicyConfig
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
    """Write a checkpoint; equal policies give equal bytes.

    The weights are written last, and older ones removed first: half a checkpoint cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POLICY).unlink(missing_ok=True)
    space.save(folder / SPACE)
    text = json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8", newline="\n")
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    facts = config.model_dump(mode="json")
    (folder / CARD).write_text(card(facts, parameters), encoding="utf-8", newline="\n")
    save_file(policy.state_dict(), folder / POLICY, metadata={"format": FORMAT})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load a checkpoint.

    Raises:
        UserError: It is missing, damaged, of another version, or its parts do not belong together.
    """
    config = read_config(folder)
    space = read_feature_space(folder / SPACE)
    if space.sha256 != config.feature_space:
        raise UserError(
            f"{folder}: {SPACE} is not the feature space that the policy was trained in: restore "
            "the whole folder (`dvc checkout`), or train it again."
        )
    policy = build_policy(config.architecture)
    try:
        policy.load_state_dict(_weights(folder / POLICY), strict=True)
    except RuntimeError as error:
        raise UserError(
            f"{folder / POLICY} holds other weights than {CONFIG} describes: train it again "
            f"(`dvc repro`). {error}"
        ) from error
    sizes = (space.query_size, space.candidate_size)
    if sizes != (config.architecture.query_size, config.architecture.candidate_size):
        raise UserError(
            f"{folder}: the policy and its feature space differ in size: train it again."
        )
    return Checkpoint(policy.eval(), space, config)


def load_policy(
    folder: Path, *, pool_sha256: str, space_sha256: str, allow_other_pool: bool = False
) -> Policy:
    """Load the policy of an experiment's checkpoint in eval mode.

    Args:
        folder: The checkpoint.
        pool_sha256: Hash of the pools that the policy is about to choose from.
        space_sha256: Hash of the feature space that its inputs are in.
        allow_other_pool: Measure a policy on other pools than it was trained with, on purpose.

    Raises:
        UserError: It cannot be loaded, or was trained with other pools or in another space.
    """
    policy, _, config = load_checkpoint(folder)
    if config.pool_sha256 != pool_sha256 and not allow_other_pool:
        raise UserError(
            f"{folder} was trained on pools {config.pool_sha256[:12]}, not {pool_sha256[:12]}: "
            "train it again (`dvc repro`), or allow another pool explicitly to measure transfer."
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
    if not path.is_file():
        if (folder / POLICY).is_file():
            raise UserError(
                f"{folder} is a checkpoint of an earlier version (it has no {CONFIG}), which "
                "cannot be used any more: train it again (`dvc repro`)."
            )
        raise UserError(
            f"{folder} holds no checkpoint: run the stage that trains it (`dvc repro`)."
        )
    try:
        config = CheckpointConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path} is no checkpoint's configuration ({place}: {first['msg']}): restore it, or "
            "train the policy again."
        ) from error
    if config.format != FORMAT:
        raise UserError(f"{path} has format {config.format!r}, not {FORMAT!r}: train it again.")
    return config


def _weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing: restore the folder, or train the policy again.")
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): run its stage again.") from error
    for name, tensor in weights.items():
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            raise UserError(
                f"{path}: {name} holds numbers that are not finite float32: the file is damaged, "
                "or its training diverged. Train it again."
            )
    return weights
