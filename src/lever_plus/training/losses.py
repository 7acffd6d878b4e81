"""The training objectives, as pure functions of tensors.

Shapes: B queries, G candidates, T steps, K pool. `log_probs` are those of the listed pointers under
the policy being trained; no model is in here. Groups that are not informative are dropped from
numerator and denominator by the caller (`rewards.informative`).
"""

import torch
from torch import Tensor, nn

from lever_plus.training.returns import going_on

LARGEST_LOG_RATIO = 20.0


def sft(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return -mean_B sum_G weight * log pi(pointer).

    Args:
        log_probs: [B, G, T].
        weights: [B, G], summing to 1 over a group.
    """
    return -(weights * log_probs.sum(-1)).sum(-1).mean()


def listwise(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Return -mean_B mean_G sum_K weight * log pi(candidate | prefix).

    The cross-entropy of whole step distributions with target weights over the pool.

    Args:
        log_probs: Of the step after each prefix, [B, G, K]; -inf where nothing can be picked.
        weights: [B, G, K], summing to 1 over the pool; 0 where nothing can be picked.
    """
    terms = weights * log_probs.masked_fill(weights == 0, 0.0)
    return -terms.sum(-1).mean(-1).mean()


def rce(log_probs: Tensor, returns: Tensor, keep: Tensor, tau: float) -> Tensor:
    """Return reward-weighted cross-entropy: -mean_B sum_T sum_G softmax_G(R_t / tau) log pi_t.

    Its optimum copies mu, the mixture that filled the list: pi_t(i | p) is proportional to
    mu(i | p) times the mean of exp(R_t / tau) over the list's pointers that begin with p and i.
    With equal returns over T that is mu exp(R / tau) for whole pointers: a baseline.

    Args:
        log_probs: [B, G, T].
        returns: Of every step [B, G, T]; equal over T, they weigh whole pointers.
        keep: Bool [B, G].
        tau: Temperature in units of the reward.
    """
    weights = (returns / tau).masked_fill(~keep.unsqueeze(-1), -torch.inf).softmax(1)
    return -(weights * log_probs).sum((1, 2)).mean()


def agro(log_ratio: Tensor, returns: Tensor, keep: Tensor, beta: float) -> Tensor:
    """Return the group variance of R - beta log(pi / reference), over 2 beta.

    loss = mean_B sum_S Var_G[R_s - beta log(pi / reference)_s] / (2 beta)
    (AGRO, Tang et al. 2025, arXiv 2503.19612; half the mean squared difference over all pairs, as
    in REBEL and IPO). For whole pointers (S = 1) it is zero exactly where pi is
    reference exp(R / beta) / Z on the list, whatever distribution filled it: no behaviour
    probabilities, ratios or clips. The variance is unbiased, so that at pi = reference the gradient
    is that of leave-one-out REINFORCE; with a term for every step (S = T) and its reward-to-go,
    that of REINFORCE with credit per step.

    Args:
        log_ratio: log pi - log reference of whole pointers [B, G, 1] or of every pick [B, G, T];
            with gradient.
        returns: Of the same, [B, G, S].
        keep: Bool [B, G]; repeats would count twice. Groups of one give 0.
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
    """Return the clipped surrogate with one ratio a step, and the share of clipped steps.

    loss = -mean_B mean_G sum_T min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi/old
    (Shao et al. 2024, arXiv 2402.03300; clip-higher: Yu et al. 2025, arXiv 2503.14476).
    Deviations: advantages per step, no division by a standard deviation. With the sums over T in
    place of the log-probs, and one advantage a pointer (T = 1), the ratio is a sequence's. Clipped
    steps are counted within a query's kept candidates; the share is the mean over queries.

    Args:
        log_probs: [B, G, T]; with gradient.
        old_log_probs: [B, G, T] of the policy that the candidates were sampled from.
        advantages: [B, G, T].
        keep: Bool [B, G].
        clip_low: Lower clip distance.
        clip_high: Upper clip distance.
    """
    difference = (log_probs - old_log_probs).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    ratio = difference.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages).sum(-1)
    loss = -group_mean(surrogate, keep)
    active = (ratio * advantages > clipped * advantages).float().mean(-1)
    return loss, group_mean(active, keep).detach()


def stop(log_odds: Tensor, values: Tensor) -> Tensor:
    """Return the weighted cross-entropy of stopping where that is worth more than going on.

    mean_{B,G} sum_s |A_s| cross-entropy(stop_s, A_s > 0) with A_s the advantage of stopping after s
    picks over going on. For one state its optimum is the share of |A| with A > 0, so a decision at
    1/2 is that of the larger expected return.

    Args:
        log_odds: Of stopping after 0..T-1 picks, [B, G, T]; with gradient.
        values: What ending with 0..T demonstrations is worth, [B, G, T + 1].
    """
    advantage = values[..., :-1] - going_on(log_odds.detach(), values)
    right = (advantage > 0).to(values.dtype)
    terms = nn.functional.binary_cross_entropy_with_logits(log_odds, right, reduction="none")
    return (advantage.abs() * terms).sum(-1).mean()


def group_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Return the mean over queries of the mean over each one's kept candidates, [B, G] each."""
    kept = keep.to(values.dtype)
    return ((values * kept).sum(-1) / kept.sum(-1).clamp(min=1)).mean()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return the older system's penalty r - 1 - log r with r = pi / reference, elementwise.

    It is never negative, and 0 at the reference alone. The k3 estimate of KL(pi || reference)
    (Schulman 2020) has the inverse of r: this one estimates KL(reference || pi) from samples of the
    reference. Over samples of pi its mean is chi2(pi || reference) - KL(pi || reference), and its
    gradient that of chi2(pi || reference) / 2; chi2 is the mean of r under pi, minus 1.

    Args:
        log_probs: Under pi, with gradient.
        reference: Of the same under the reference.
    """
    log_ratio = (log_probs - reference).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return log_ratio.exp() - 1 - log_ratio


def exact_kl(step_log_probs: Tensor, reference: Tensor) -> Tensor:
    """Return KL(pi || reference) of every step distribution, exact: [B, G, T] from [B, G, T, K]."""
    live = step_log_probs > -torch.inf
    difference = (step_log_probs - reference).masked_fill(~live, 0.0)
    return (step_log_probs.exp() * difference).sum(-1)


def entropy(step_log_probs: Tensor) -> Tensor:
    """Return the entropy of every step distribution in nats, [B, G, T] from [B, G, T, K]."""
    live = step_log_probs > -torch.inf
    return -(step_log_probs.exp() * step_log_probs.masked_fill(~live, 0.0)).sum(-1)
