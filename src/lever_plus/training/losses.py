"""The training objectives, as pure functions of tensors; none of them calls a model.

Shapes: B queries, G candidates, T steps, K examples in the pool. `log_probs` are those of the
listed pointers under the policy that is trained, in nats. The caller leaves out groups that are not
informative (`returns.informative`), so that they do not count in any mean.
"""

import torch
from torch import Tensor, nn

from lever_plus.training.returns import going_on

LARGEST_LOG_RATIO = 20.0


def sft(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of whole pointers: -mean_B sum_G weight * log pi(pointer).

    Args:
        log_probs: [B, G, T].
        weights: [B, G], summing to 1 over a group.
    """
    return -(weights * log_probs.sum(-1)).sum(-1).mean()


def listwise(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return -mean_B mean_G sum_K weight * log pi(candidate | prefix).

    This is the cross-entropy between target weights over the pool and the policy's distribution of
    the next pick.

    Args:
        log_probs: Of the pick after each of G prefixes, [B, G, K]; -inf for what can't be picked.
        weights: [B, G, K], summing to 1 over the pool; 0 for what can't be picked.
    """
    terms = weights * log_probs.masked_fill(weights == 0, 0.0)
    return -terms.sum(-1).mean(-1).mean()


def rce(log_probs: Tensor, returns: Tensor, keep: Tensor, tau: float) -> Tensor:
    """Return reward-weighted cross-entropy: -mean_B sum_T sum_G softmax_G(R_t / tau) log pi_t.

    Its optimum depends on mu, the mixture of generators that filled the list: after a prefix, the
    probability of the next pick is proportional to its probability under mu, times the mean of
    exp(R_t / tau) over the list's pointers that begin with this prefix and this pick. If returns
    are equal at all steps, that is mu * exp(R / tau) for whole pointers. So RCE serves as a
    baseline.

    Args:
        log_probs: [B, G, T].
        returns: Return of every step, [B, G, T]; if equal over T, they weight whole pointers.
        keep: Bool [B, G]; False leaves a candidate out.
        tau: Temperature in units of the reward.
    """
    weights = (returns / tau).masked_fill(~keep.unsqueeze(-1), -torch.inf).softmax(1)
    return -(weights * log_probs).sum((1, 2)).mean()


def agro(log_ratio: Tensor, returns: Tensor, keep: Tensor, beta: float) -> Tensor:
    """Return the variance inside groups of R - beta log(pi / reference), divided by 2 beta.

    loss = mean_B sum_S Var_G[R_s - beta log(pi / reference)_s] / (2 beta)
    (AGRO, Tang et al. 2025, arXiv 2503.19612). A variance is half the mean squared difference over
    all pairs, as in REBEL and IPO. For whole pointers (S = 1) the loss is zero exactly if pi is
    reference * exp(R / beta) / Z on the list, whatever distribution filled the list: it needs no
    probabilities of that distribution, no ratios and no clips. The variance is unbiased, so that at
    pi = reference its gradient is that of leave-one-out REINFORCE; with a term for every step
    (S = T) and rewards-to-go, it is that of REINFORCE with credit per step.

    Args:
        log_ratio: log pi - log reference of whole pointers [B, G, 1] or of every pick [B, G, T];
            with gradient.
        returns: Returns of the same pointers or picks, [B, G, S].
        keep: Bool [B, G]; False for repeats, which would count twice. Groups of one give 0.
        beta: Temperature: weight of the KL to the reference, in units of the reward.
    """
    kept = keep.to(returns.dtype).unsqueeze(-1)
    residual = returns - beta * log_ratio
    count = kept.sum(1, keepdim=True)
    mean = (residual * kept).sum(1, keepdim=True) / count.clamp(min=1)
    squares = ((residual - mean).square() * kept).sum(1)
    variances = squares / (count.squeeze(1) - 1).clamp(min=1)
    return variances.sum(-1).mean() / (2 * beta)


def grpo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    keep: Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """Return the loss of GRPO's clipped surrogate, and the share of steps that are clipped.

    loss = -mean_B mean_G sum_T min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi/old
    (Shao et al. 2024, arXiv 2402.03300; clip-higher: Yu et al. 2025, arXiv 2503.14476).
    Deviations: each step has its own ratio and advantage, and nothing is divided by a standard
    deviation. For one ratio per pointer, give log-probs summed over T and one advantage per pointer
    (T = 1). The share of clipped steps is that of a query's kept candidates, mean over queries.

    Args:
        log_probs: [B, G, T]; with gradient.
        old_log_probs: Under the policy that the candidates were sampled from, [B, G, T].
        advantages: [B, G, T].
        keep: Bool [B, G]; False leaves a candidate out.
        clip_low: How far a ratio may fall below 1.
        clip_high: How far a ratio may rise above 1.
    """
    difference = (log_probs - old_log_probs).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = difference.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages).sum(-1)
    loss = -group_mean(surrogate, keep)
    active = (ratio * advantages > clipped * advantages).float().mean(-1)
    return loss, group_mean(active, keep).detach()


def stop(log_odds: Tensor, values: Tensor) -> Tensor:
    """Return the weighted cross-entropy of the decisions to stop or to continue.

    loss = mean_{B,G} sum_s |A_s| cross-entropy(stop_s, A_s > 0)
    A_s is the advantage of stopping after s picks over continuing. In a given state, the best
    probability of stopping is the share of the total |A| that belongs to positive A. So a policy
    that stops if this probability is above 1/2 makes the decision with the larger expected return.

    Args:
        log_odds: Log-odds of stopping after 0..T-1 picks, [B, G, T]; with gradient.
        values: Value of ending with 0..T demonstrations, [B, G, T + 1].
    """
    advantage = values[..., :-1] - going_on(log_odds.detach(), values)
    right = (advantage > 0).to(values.dtype)
    terms = nn.functional.binary_cross_entropy_with_logits(log_odds, right, reduction="none")
    return (advantage.abs() * terms).sum(-1).mean()


def group_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean over queries of the mean over their kept candidates.

    Args:
        values: [B, G].
        keep: Bool [B, G].
    """
    kept = keep.to(values.dtype)
    return ((values * kept).sum(-1) / kept.sum(-1).clamp(min=1)).mean()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the older system's penalty r - 1 - log r with r = pi / reference, elementwise.

    It is never negative, and it is 0 only at r = 1. It is not the usual k3 estimate of
    KL(pi || reference) (Schulman 2020), which uses the inverse of r: from samples of the reference
    it estimates KL(reference || pi). Over samples of pi its mean is
    chi2(pi || reference) - KL(pi || reference), and its gradient is that of
    chi2(pi || reference) / 2, where chi2 is the mean of r under pi, minus 1.

    Args:
        log_probs: Log-probs under pi, of any shape; with gradient.
        reference: Log-probs under the reference, of the same shape.
    """
    log_ratio = (log_probs - reference).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return log_ratio.exp() - 1 - log_ratio


def exact_kl(step_log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the exact KL(pi || reference) of every step in nats, [B, G, T] from [B, G, T, K]."""
    live = step_log_probs > -torch.inf
    difference = (step_log_probs - reference).masked_fill(~live, 0.0)
    return (step_log_probs.exp() * difference).sum(-1)


def entropy(step_log_probs: Tensor) -> Tensor:
    """Return the entropy of every step distribution in nats, [B, G, T] from [B, G, T, K]."""
    live = step_log_probs > -torch.inf
    return -(step_log_probs.exp() * step_log_probs.masked_fill(~live, 0.0)).sum(-1)
