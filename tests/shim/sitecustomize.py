"""Read by Python when a program of another environment starts: it lets torchvision load.

The wheel of torchvision is built for a torch with CUDA, not for the one without. Importing it needs
two of its compiled operators to be named; no image processor calls them.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
if torch.version.cuda is None:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", BOXES)
