"""What a policy is worth, estimated from a list of scored candidates that others proposed.

For comparing checkpoints before any VLM call, never for a reported number. All estimators are
unbiased where the proposal's probabilities are exact; the effective sample size tells how much they
can be trusted. Notation: pi the policy, mu what sampled, R the reward, n samples.
"""

from torch import Tensor


def mixture_log_prob(log_probs: Tensor, counts: Tensor) -> Tensor:
    """Return log mu of candidates drawn by several samplers: log sum_m (n_m / n) mu_m(y).

    The balance heuristic (Veach and Guibas 1995): every sampled candidate is weighed by the whole
    mixture, whichever sampler drew it, each with its own temperature.

    Args:
        log_probs: log mu_m(y) of every candidate under every sampler, [..., G, M].
        counts: Candidates that each sampler drew, [M].
    """
    shares = counts.to(log_probs.dtype) / counts.sum()
    return (log_probs + shares.log()).logsumexp(-1)


def importance_value(log_pi: Tensor, log_mu: Tensor, rewards: Tensor, listed: Tensor) -> Tensor:
    """Return the part of E_pi[R] that a deterministic search did not list, [...], unbiased.

    1/n sum_{y sampled, not listed} pi(y) / mu(y) R(y). What beam search lists is a stratum of its
    own, known exactly: add sum_{y listed} pi(y) R(y).

    Args:
        log_pi: Log-probabilities of the samples, [..., G].
        log_mu: Log-probabilities under what sampled them, [..., G].
        rewards: [..., G].
        listed: Bool [..., G]: samples that the search listed too.
    """
    weights = (log_pi - log_mu).exp().masked_fill(listed, 0.0)
    return (weights * rewards).mean(-1)


def doubly_robust(
    log_pi: Tensor, log_mu: Tensor, rewards: Tensor, predicted: Tensor, expected: Tensor
) -> Tensor:
    """Return sum_a pi(a) R^(a) + mean pi/mu (R - R^), unbiased whatever the prediction R^ is.

    Dudik et al. 2011 (arXiv 1103.4601).

    Args:
        log_pi: Log-probabilities of the samples, [..., G].
        log_mu: Log-probabilities under what sampled them, [..., G].
        rewards: [..., G].
        predicted: R^ of the samples, [..., G].
        expected: Expectation of R^ under pi, [...].
    """
    return expected + ((log_pi - log_mu).exp() * (rewards - predicted)).mean(-1)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return (sum w)^2 / sum w^2 of weights given by their logarithms, [...] from [..., G]."""
    scaled = (log_weights - log_weights.amax(-1, keepdim=True)).exp()
    return scaled.sum(-1).square() / scaled.square().sum(-1)
