"""Numbers, and gradients of a policy's parameters, for tests against enumeration."""

import torch
from torch import Tensor

from lever_plus.policy.network import Encoded, Policy


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers in float64; equal seeds give equal ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def whole(policy: Policy, encoded: Encoded, every: Tensor) -> Tensor:
    """Return the log-probability of every pointer, [60]."""
    return policy.log_probs(encoded, every).sum(-1)[0]


def gradient(value: Tensor, policy: Policy) -> Tensor:
    """Return the gradient of a value in all parameters, as one vector."""
    parameters = list(policy.parameters())
    parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)
    ]
    return torch.cat([part.flatten() for part in filled])


def everyone(values: Tensor) -> Tensor:
    """Return a mask [n, G] that keeps all candidates of values [n, G, ...]."""
    return torch.ones(values.shape[:2], dtype=torch.bool)
