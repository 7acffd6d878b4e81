"""Names of the files of a checkpoint."""

from typing import Final

POLICY: Final = "policy.safetensors"
SPACE: Final = "feature_space.safetensors"
CONFIG: Final = "config.json"
CARD: Final = "README.md"
