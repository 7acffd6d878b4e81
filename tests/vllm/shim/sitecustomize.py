"""Read by Python when a server of these tests starts: it lets torchvision load.

vLLM's models need torchvision, whose wheel is built for another torch than the one without CUDA;
of its compiled operators, importing it needs two to be named, and no image processor calls them.
"""

import torch

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", BOXES)
