"""Linear layers of a frozen model on oneDNN.

For float32 torch's CPU wheel calls MKL, which has only AVX2 kernels for processors that are not
Intel's. oneDNN, in the same wheel, uses what the processor has: on an AMD EPYC with AVX-512 such
products were 2.2 times as fast. Forward passes only: the operator has no gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn


class OneDnnLinear(nn.Linear):
    """A linear layer whose product oneDNN computes."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input W' + b, [..., out_features]."""
        if not input.numel():
            return super().forward(input)
        operator = torch.ops.mkldnn._linear_pointwise
        out: Tensor = operator(input, self.weight, self.bias, "none", [], "")
        return out


def use_onednn(model: Any) -> None:
    """Let oneDNN compute the linear layers of a model, where that can be: float32 on a CPU."""
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return
    for module in model.modules():
        if type(module) is nn.Linear and _possible(module.weight):
            _become(module, OneDnnLinear)


def use_torch(model: Any) -> None:
    """Undo `use_onednn`."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            _become(module, nn.Linear)


def _become(layer: nn.Linear, kind: type[nn.Linear]) -> None:
    layer.__class__ = kind  # weights and hooks stay


def _possible(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
