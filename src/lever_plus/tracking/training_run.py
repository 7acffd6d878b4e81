"""A training run: its stage, method and seed, and where its history and policy file are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HISTORY_MD5: Final = "history.md5"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run: its stage, method and seed, and the file of its history."""

    stage: str
    method: str
    seed: int
    history: Path

    @property
    def name(self) -> str:
        """Return the run's name, `<stage>/<method>/seed<k>`."""
        return f"{self.stage}/{self.method}/seed{self.seed}"

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags that say which run this is."""
        return {
            "pipeline.stage": self.stage,
            "pipeline.method": self.method,
            "pipeline.seed": str(self.seed),
        }

    @property
    def evaluated_as(self) -> str:
        """Return its name in evaluations: the method, or `<variant>/<method>` for an ablation."""
        _, _, variant = self.stage.partition("/")
        return f"{variant}/{self.method}" if variant else self.method

    @property
    def checkpoint(self) -> Path:
        """Return the path of the policy that the run trained."""
        return self.history.with_name("policy.safetensors")

    @property
    def is_whole(self) -> bool:
        """Whether the training has ended: its stage writes the policy after the last row."""
        return self.history.is_file() and self.checkpoint.is_file()

    def key(self) -> dict[str, str]:
        """Return the tags that find this run with its current history."""
        return {**self.tags, HISTORY_MD5: md5(self.history)}


def md5(path: Path) -> str:
    """Return the md5 of a file, as DVC writes it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
