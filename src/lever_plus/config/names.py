"""Names of what is trained: sections of params.yaml, stages of dvc.yaml, methods of an evaluation.

Methods that stage `rce` trains are named in `rce.tau`, AGRO excepted, which it trains beside them.
"""

from typing import Final

SFT: Final = "sft"
RCE: Final = "rce"
AGRO: Final = "agro"
GRPO: Final = "grpo"
