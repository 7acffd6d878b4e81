"""Checkpoints: weights as safetensors, with all they need to be loaded right in their header.

A checkpoint carries its architecture, the sha256 of the pools and of the encoder it was trained
with. Loading is strict: half-loaded weights and another pool are refused. Nothing is unpickled.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lever_plus.errors import UserError
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig

FORMAT = "lever-plus-selector-2"


def save_policy(path: Path, policy: Policy, *, pool_sha256: str, encoder: str) -> None:
    """Write a checkpoint; equal policies give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": FORMAT,
        "config": json.dumps(policy.config.as_dict(), sort_keys=True),
        "pool_sha256": pool_sha256,
        "encoder": encoder,
    }
    # One key: safetensors does not promise the order of several.
    save_file(
        policy.state_dict(), path, metadata={"lever_plus": json.dumps(header, sort_keys=True)}
    )


def load_policy(
    path: Path, *, pool_sha256: str, encoder: str, allow_other_pool: bool = False
) -> Policy:
    """Load a checkpoint in eval mode.

    Args:
        path: The checkpoint.
        pool_sha256: Hash of the pools that the policy is about to choose from.
        encoder: Hash of the encoder whose features it is about to see.
        allow_other_pool: Measure a policy on other pools than it was trained with, on purpose.

    Raises:
        UserError: The file is missing, is not a checkpoint, has other weights than its
            architecture, or was trained with other pools or another encoder.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run the stage that trains it (`dvc repro`).")
    header, weights = _read(path)
    if header["pool_sha256"] != pool_sha256 and not allow_other_pool:
        raise UserError(
            f"{path} was trained on pools {header['pool_sha256'][:12]}, not {pool_sha256[:12]}: "
            "train it again (`dvc repro`), or allow another pool explicitly to measure transfer."
        )
    if header["encoder"] != encoder:
        raise UserError(
            f"{path} was trained on features of encoder {header['encoder'][:12]}, not "
            f"{encoder[:12]}: run `dvc repro` with one encoder."
        )
    policy = build_policy(PolicyConfig(**json.loads(header["config"])))
    try:
        policy.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UserError(
            f"{path} holds other weights than its architecture: train it again "
            f"(`dvc repro`). {error}"
        ) from error
    return policy.eval()


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = json.loads((file.metadata() or {}).get("lever_plus", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): run its stage again.") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path} is not a Lever-Plus checkpoint: point to a policy.safetensors.")
    return header, weights
