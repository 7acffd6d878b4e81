"""Read by Python when a program of another environment starts: it lets torchvision load.

The wheel of torchvision is built for another torch than the one without CUDA; of its compiled
operators, importing it needs two to be named, and no image processor calls them.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
if torch.version.cuda is None:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", BOXES)
