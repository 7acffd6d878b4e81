"""Where every stage puts its outputs; dvc.yaml names the same places."""

from pathlib import Path
from typing import Final

from lever_plus.config import names

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
TRAINING: Final = CACHE / "training"
METRICS: Final = Path("metrics")
SUMMARY: Final = METRICS / "summary.json"
PLOTS: Final = Path("plots")
RECORDS: Final = RL_DATA / "records.jsonl"
POLICY: Final = "policy.safetensors"
HISTORY: Final = "history.jsonl"


def offline(method: str, seed: int) -> Path:
    """Return the folder of one run on the RL data: an RCE schedule, or AGRO."""
    return ARTIFACTS / "rce" / f"seed{seed}" / method


def ablation(variant: str, method: str | None = None, seed: int | None = None) -> Path:
    """Return the folder of a variant of the pipeline, or of one of its trained policies."""
    folder = ARTIFACTS / "ablations" / variant
    return folder if method is None else folder / f"seed{seed}" / method


def grpo(seed: int) -> Path:
    """Return the folder of one GRPO run."""
    return ARTIFACTS / "grpo" / f"seed{seed}"


def trained(method: str, seed: int) -> Path:
    """Return the folder of any method's policy."""
    known = {names.SFT: SFT, names.GRPO: grpo(seed)}
    return known.get(method) or offline(method, seed)
