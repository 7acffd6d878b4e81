"""A small embedded data set and where tiny models lie: what several subpackages' tests share."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lever_plus.config.offline import TauSchedule
from lever_plus.data.examples import SPLITS, Example
from lever_plus.data.vqa_files import read_vqa_files, with_image_hashes
from lever_plus.evaluation.methods import methods_of
from lever_plus.house_words.maker import IMAGE_NAME
from lever_plus.policy.kinds import build_policy
from lever_plus.policy.network import Policy, PolicyConfig

ROOT = Path(__file__).parent.parent
TAU = TauSchedule(start=0.4, end=0.1)
TARGETS = {"sft": "scores", "sft-beams": "beams"}
REGISTRY = methods_of({"rce": TAU, "rce-seed": TAU}, TARGETS, best_of=16)
"""Methods with the names of params.yaml."""


@dataclass(frozen=True)
class World:
    """A small data set on disk and its examples."""

    folder: Path
    splits: dict[str, list[Example]]

    @property
    def examples(self) -> dict[int, Example]:
        """All examples by id."""
        return {e.question_id: e for split in self.splits.values() for e in split}


@dataclass(frozen=True)
class Folders:
    """Hugging Face folders of tiny models."""

    clip: Path
    vlm: Path


def read_world(folder: Path) -> World:
    """Read a data set that the maker wrote."""
    splits = {
        split: with_image_hashes(
            read_vqa_files(
                folder / f"questions_{split}.json",
                folder / f"annotations_{split}.json",
                folder / "images" / split,
                IMAGE_NAME,
            )
        )
        for split in SPLITS
    }
    return World(folder, splits)


def random_policy(config: PolicyConfig) -> Policy:
    """A random policy in float64 whose probabilities are far from uniform."""
    torch.manual_seed(3)
    policy = build_policy(config).double().eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return policy
