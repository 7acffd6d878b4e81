"""Where every stage puts its outputs; dvc.yaml names the same places."""

from pathlib import Path
from typing import Final

ARTIFACTS: Final = Path("artifacts")
PREPARE: Final = ARTIFACTS / "prepare"
SOURCE: Final = PREPARE / "source"
IMAGES: Final = ARTIFACTS / "images"
POOLS: Final = ARTIFACTS / "pool" / "pools.jsonl"
CLIP: Final = ARTIFACTS / "pretrain" / "clip"
VLM: Final = ARTIFACTS / "pretrain" / "vlm"
EMBED: Final = ARTIFACTS / "embed"
SEQUENCES: Final = ARTIFACTS / "sft_data" / "sequences.jsonl"
SFT: Final = ARTIFACTS / "sft"
RL_DATA: Final = ARTIFACTS / "rl_data"
SCORES: Final = ARTIFACTS / "evaluate" / "scores.parquet"
REPORT: Final = ARTIFACTS / "report"
CACHE: Final = Path("cache")
"""What only saves time: it may be deleted, and no result depends on it."""
USAGE: Final = CACHE / "usage"
METRICS: Final = Path("metrics")
SUMMARY: Final = METRICS / "summary.json"
PLOTS: Final = Path("plots")
POLICY: Final = "policy.safetensors"
HISTORY: Final = "history.jsonl"


def offline(method: str, seed: int) -> Path:
    """Return the folder of one run on the RL data: an RCE schedule, or AGRO."""
    return ARTIFACTS / "rce" / f"seed{seed}" / method


def grpo(seed: int) -> Path:
    """Return the folder of one GRPO run."""
    return ARTIFACTS / "grpo" / f"seed{seed}"
