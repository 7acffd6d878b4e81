"""AGRO: group-variance regression on the RL data.

Of the offline objectives, this one has the firmest theory:
    loss = mean Var_group[R - beta log(pi / reference)] / (2 beta)    (see `losses.agro`)
The reference is a frozen copy of the policy before training. With `credit: total` the optimum is
proportional to reference * exp(R / beta), the solution of the KL-regularised problem. This holds
for any list of more than one pointer, so a list may mix beams, samples, random candidates and those
of later rounds (`rounds`). With `credit: reward_to_go` every pick has a term of its own, which
counts only the rewards that this pick can change: there is less noise, but the optimum is no longer
exactly the same. All log-probs are computed in eval mode.

The history has two more keys. `log_ratio` is the mean of log(pi / reference) over a query's list,
and over queries: if it keeps falling, beta is too small. `list_ess` is the effective sample size of
the list under the policy, as a share of its candidates: below about 0.3, fresh candidates teach
more than further epochs.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from lever_plus.config.offline import AgroParams, ConstantGroups
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups
from lever_plus.training.loop import Trained
from lever_plus.training.offline import Batch, Fresh, Objective, pointer_log_probs, train_offline
from lever_plus.training.returns import reward_to_go, total
from lever_plus.training.trainer import Run


def train_agro(
    policy: Policy,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: AgroParams,
    run: Run,
    constant_groups: ConstantGroups = "drop",
) -> Trained:
    """Train a policy on groups of scored candidates.

    Args:
        policy: Trained in place; a frozen copy of it is the reference.
        environment: Pools, features and rewards.
        groups: Scored candidates of the training queries.
        dev: Queries on which the best epoch is chosen.
        params: Beta, credit, rounds, epochs and optimiser.
        run: Seed, observer, and the file that keeps the state.
        constant_groups: Whether groups that are constant at every step are left out ("drop").
    """
    start = deepcopy(policy)

    def objective(informative: Groups) -> Objective:
        reference = pointer_log_probs(start, environment, informative)

        def log_ratio(batch: Batch) -> Tensor:
            return batch.log_probs - reference[batch.rows]

        def loss(batch: Batch) -> Tensor:
            ratio, returns = log_ratio(batch), batch.returns
            if params.credit == "total":
                ratio, returns = ratio.sum(-1, keepdim=True), returns[..., :1]
            return losses.agro(ratio, returns, batch.keep, params.beta)

        def figures(batch: Batch) -> dict[str, float]:
            of_pointers = log_ratio(batch).detach().sum(-1)
            return {
                "log_ratio": losses.group_mean(of_pointers, batch.keep).item(),
                "list_ess": _share_in_use(of_pointers, batch.keep).item(),
            }

        return Objective(loss, figures)

    credit = reward_to_go if params.credit == "reward_to_go" else total
    fresh = Fresh(params.rounds, params.group_size)
    return train_offline(
        policy,
        environment,
        groups,
        dev,
        params,
        credit,
        objective,
        run,
        constant_groups=constant_groups,
        fresh=fresh,
    )


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Return (sum w)^2 / sum w^2 of weights that are given as logarithms.

    Args:
        log_weights: Natural logarithms of the weights, [..., G].

    Returns:
        A number between 1 and G for every list, [...].
    """
    scaled = (log_weights - log_weights.amax(-1, keepdim=True)).exp()
    return scaled.sum(-1).square() / scaled.square().sum(-1)


def _share_in_use(log_ratio: Tensor, keep: Tensor) -> Tensor:
    size = effective_sample_size(log_ratio.masked_fill(~keep, -torch.inf))
    return (size / keep.sum(-1).clamp(min=1)).mean()
