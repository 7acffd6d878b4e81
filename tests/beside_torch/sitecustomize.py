"""Lets torchvision load beside a CPU-only torch; only the tests use this.

PyPI's torchvision is built for CUDA: beside a CPU-only torch its own operators do not load, and its
import asks for two of them, which no image processor uses. transformers then cannot be imported
either, so `make install` puts torchvision apart, where only the tests find it: they import this
module, and processes that they start have its folder on PYTHONPATH.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Final

APART: Final = Path(sys.prefix) / "vision"
"""What the extra [vision] has beside torch, put there by `make install`."""

if APART.is_dir() and importlib.util.find_spec("torchvision") is None:
    import torch

    sys.path.append(str(APART))
    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
