"""Returns and advantages of groups.

The reward of a pointer is R_tot = sum_k w_k R_k. The return of step t is its reward-to-go
G_t = sum_{k>=t} w_k R_k: rewards at earlier shots depend only on earlier picks, so their terms in
the gradient vanish in expectation. The baseline is the leave-one-out mean over the group (Kool et
al. 2019, RLOO); it is unbiased, and nothing is divided by a standard deviation. `z_score` serves
for comparison with the older system.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lever_plus.config.offline import ConstantGroups

Credit = Callable[[Tensor, Tensor], Tensor]
"""Turns the rewards [..., T] at shots 1..T and their weights [T] into returns of the steps."""
CONSTANT = 1e-6
"""Groups whose returns differ by no more than this are constant: the rest is rounding errors."""


def reward_to_go(rewards: Tensor, shot_weights: Tensor) -> Tensor:
    """Return G_t [..., T] from the rewards [..., T] at shots 1..T and their weights [T]."""
    return (rewards * shot_weights).flip(-1).cumsum(-1).flip(-1)


def mean_to_go(rewards: Tensor, shot_weights: Tensor) -> Tensor:
    """Return the weighted mean of the rewards at shots t..T, [..., T]: G_t in a reward's units.

    Args:
        rewards: At shots 1..T, [..., T].
        shot_weights: [T]; the last one must be above 0.
    """
    remaining = shot_weights.flip(-1).cumsum(-1).flip(-1)
    return reward_to_go(rewards, shot_weights) / remaining


def total(rewards: Tensor, shot_weights: Tensor) -> Tensor:
    """Return R_tot for every step, [..., T], whichever shots the step can change."""
    return (rewards * shot_weights).sum(-1, keepdim=True).expand_as(rewards)


def going_on(log_odds: Tensor, values: Tensor) -> Tensor:
    """Return the exact expected value of continuing after 0..T-1 picks, [..., T].

    Args:
        log_odds: Log-odds of stopping after 0..T-1 picks, [..., T].
        values: Value of ending with 0..T demonstrations, [..., T + 1].
    """
    stop = torch.sigmoid(log_odds)
    worth = [values[..., -1]]
    for s in range(log_odds.shape[-1] - 1, 0, -1):
        worth.append(stop[..., s] * values[..., s] + (1 - stop[..., s]) * worth[-1])
    return torch.stack(worth[::-1], dim=-1)


def informative(returns: Tensor, keep: Tensor) -> Tensor:
    """Return bool [n]: True for groups whose kept candidates differ in their return at some step.

    Args:
        returns: [n, G, T]; candidates with equal returns at step 1 may differ at later steps.
        keep: Bool [n, G].
    """
    drop = ~keep.unsqueeze(-1)
    low = returns.masked_fill(drop, torch.inf).amin(1)
    high = returns.masked_fill(drop, -torch.inf).amax(1)
    return (high - low > CONSTANT).any(-1)


def trained_rows(returns: Tensor, keep: Tensor, constant_groups: ConstantGroups) -> Tensor:
    """Return the row numbers of the groups that are trained on, int [m].

    Args:
        returns: [n, G, T].
        keep: Bool [n, G].
        constant_groups: "drop" leaves out groups that are not informative, "keep" keeps all.
    """
    if constant_groups == "keep":
        return torch.arange(len(returns))
    return informative(returns, keep).nonzero().flatten()


def leave_one_out(returns: Tensor, keep: Tensor) -> Tensor:
    """Return advantages: returns [n, G, T] minus the mean of the group's other kept candidates.

    Candidates that are not kept, and groups of one, have an advantage of 0.

    Args:
        returns: [n, G, T].
        keep: Bool [n, G].
    """
    kept = keep.unsqueeze(-1).to(returns.dtype)
    count = kept.sum(1, keepdim=True)
    mean = (returns * kept).sum(1, keepdim=True) / count.clamp(min=1)
    scale = torch.where(count > 1, count / (count - 1).clamp(min=1), torch.zeros_like(count))
    return (returns - mean) * scale * kept


def z_score(returns: Tensor, keep: Tensor) -> Tensor:
    """Return advantages (returns - mean) / standard deviation of the group's kept candidates.

    If a group's standard deviation is not above `CONSTANT`, its advantages are 0: otherwise the
    division would magnify rounding errors.

    Args:
        returns: [n, G, T].
        keep: Bool [n, G].
    """
    kept = keep.unsqueeze(-1).to(returns.dtype)
    count = kept.sum(1, keepdim=True).clamp(min=1)
    centred = (returns - (returns * kept).sum(1, keepdim=True) / count) * kept
    deviation = (centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    floored = torch.where(deviation > CONSTANT, deviation, torch.inf)
    return centred / floored


def statistics(returns: Tensor, advantages: Tensor, keep: Tensor) -> dict[str, float]:
    """Return what a history says about candidates.

    Args:
        returns: [n, G, T]; that of the first step is the whole reward.
        advantages: [n, G, T].
        keep: Bool [n, G].

    Returns:
        reward: mean over kept candidates; reward_std: standard deviation inside groups, mean over
        groups; frac_reward_zero_std: share of constant groups; advantage_std: standard deviation of
        the advantages in all other groups; distinct_share: share of candidates that are kept.
    """
    kept = keep.to(returns.dtype)
    count = kept.sum(-1).clamp(min=1)
    rewards = returns[..., 0]
    means = (rewards * kept).sum(-1) / count
    squares = ((rewards - means.unsqueeze(-1)).square() * kept).sum(-1)
    useful = informative(returns, keep)
    spread = advantages[useful][keep[useful]]
    return {
        "reward": rewards[keep].mean().item(),
        "reward_std": (squares / (count - 1).clamp(min=1)).sqrt().mean().item(),
        "frac_reward_zero_std": 1.0 - useful.float().mean().item(),
        "advantage_std": spread.std().item() if spread.numel() > 1 else 0.0,
        "distinct_share": kept.mean().item(),
    }
