"""Linear layers that oneDNN computes.

For float32, torch's CPU wheel calls MKL, which has only AVX2 kernels for processors that are not
from Intel. oneDNN, in the same wheel, uses all that the processor has: on an AMD EPYC with AVX-512
such products took 1 / 2.2 of the time.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 2**14
"""Elements of an input; below that, a gradient through oneDNN costs more than it saves."""


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return values @ weight.T + bias.

    oneDNN computes it if it can (float32 on a CPU) and if that saves time, else torch.

    Args:
        values: [..., in].
        weight: [out, in].
        bias: [out], or None.

    Returns:
        [..., out].
    """
    trained = torch.is_grad_enabled()
    enough = values.numel() >= (SMALL if trained else 1)
    if not enough or not _possible(values) or not _possible(weight):
        return nn.functional.linear(values, weight, bias)
    if not trained:
        return _product(values, weight, bias)
    out: Tensor = _Product.apply(values, weight, bias)  # type: ignore[no-untyped-call]
    return out


class OneDnnLinear(nn.Linear):
    """A linear layer whose product is computed by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input @ weight.T + bias, [..., out_features]."""
        return linear(input, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Replace a model's linear layers with `OneDnnLinear`, if they are float32 on a CPU.

    The new layers share the weights of the old ones, but not their hooks. A model that is itself a
    linear layer is not changed.
    """
    for name, layer in _layers(model):
        if type(layer) is nn.Linear and _possible(layer.weight):
            model.set_submodule(name, _rebuilt(layer, OneDnnLinear))


def use_torch(model: nn.Module) -> None:
    """Undo `use_onednn`."""
    for name, layer in _layers(model):
        if type(layer) is OneDnnLinear:
            model.set_submodule(name, _rebuilt(layer, nn.Linear))


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of all modules inside a model; one with two names is there twice."""
    return [(n, m) for n, m in model.named_modules(remove_duplicate=False) if n]


def _rebuilt(layer: nn.Linear, kind: type[nn.Linear]) -> nn.Linear:
    """Return a layer of another kind with the same weights; tied weights stay tied."""
    has_bias = layer.bias is not None
    other = kind(layer.in_features, layer.out_features, has_bias, device="meta")
    other.weight, other.bias = layer.weight, layer.bias
    return other.train(layer.training)


def _possible(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32 and _available()


@cache
def _available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return values @ weight.T + bias, [..., out].

    The weight is made contiguous first: for other views oneDNN has only a reference kernel, which
    is a thousand times as slow.
    """
    operator = torch.ops.mkldnn._linear_pointwise
    rows = values.reshape(-1, values.shape[-1])
    out: Tensor = operator(rows, weight.contiguous(), bias, "none", [], "")
    return out.view(*values.shape[:-1], weight.shape[0])


class _Product(torch.autograd.Function):
    """The product with a gradient, which the operator itself does not have."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        of_values, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        inputs = values.reshape(-1, values.shape[-1]).contiguous()
        operator = torch.ops.mkldnn._linear_pointwise
        return (
            operator(rows, weight.contiguous().t(), None, "none", [], "").view_as(values)
            if of_values
            else None,
            operator(rows.t(), inputs.t(), None, "none", [], "") if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
