"""Names of the files of a checkpoint."""

from typing import Final

POLICY: Final = "policy.safetensors"
CONFIG: Final = "config.json"
CARD: Final = "README.md"
