"""Returns and advantages.

With R_tot = sum_k w_k R_k, the return of step t is its reward-to-go G_t = sum_{k>=t} w_k R_k:
accuracies at earlier shots are functions of earlier picks, so their terms vanish in expectation.
The baseline is the leave-one-out mean over the group (Kool et al. 2019, RLOO): unbiased, and there
is no division by a standard deviation.
"""

import torch
from torch import Tensor

CONSTANT = 1e-6
"""Groups whose returns differ by less are constant: float residue must not push a policy."""


def reward_to_go(rewards: Tensor, shot_weights: Tensor) -> Tensor:
    """Return G_t [..., T] from the accuracies [..., T] at shots 1..T and their weights [T]."""
    return (rewards * shot_weights).flip(-1).cumsum(-1).flip(-1)


def informative(returns: Tensor, keep: Tensor) -> Tensor:
    """Return bool [n]: groups whose kept candidates differ in their return at any step.

    Args:
        returns: [n, G, T]; equal totals (step 1) may still differ at later steps.
        keep: Bool [n, G].
    """
    drop = ~keep.unsqueeze(-1)
    low = returns.masked_fill(drop, torch.inf).amin(1)
    high = returns.masked_fill(drop, -torch.inf).amax(1)
    return (high - low > CONSTANT).any(-1)


def leave_one_out(returns: Tensor, keep: Tensor) -> Tensor:
    """Return advantages: returns [n, G, T] minus the mean of the group's other kept candidates.

    Candidates that are not kept, and groups of one, have advantage 0.
    """
    kept = keep.unsqueeze(-1).to(returns.dtype)
    count = kept.sum(1, keepdim=True)
    mean = (returns * kept).sum(1, keepdim=True) / count.clamp(min=1)
    scale = torch.where(count > 1, count / (count - 1).clamp(min=1), torch.zeros_like(count))
    return (returns - mean) * scale * kept
