"""AGRO: group-variance regression on the RL data; the best founded off-line objective.

loss = mean Var_group[R - beta log(pi / reference)] / (2 beta), see `losses.agro`. The reference is
the policy at the start, frozen. With `credit: total` its optimum is reference exp(R / beta), the
solution of the KL-regularised problem, for any list that holds more than one pointer: so beams,
samples and random candidates may stand in it together, and those of later rounds too (`rounds`).
With `credit: reward_to_go` there is such a term for every pick, with the rewards that it can
change: less noise, and no longer exactly that optimum. All log-probs come from eval mode.

`log_ratio` in the
history is the mean of log(pi / reference) over a query's list, and over queries: where it falls
without end, beta is too small. `list_ess` is the effective sample size of the list under the policy
as a share of its candidates: below about .3, fresh candidates teach more than further epochs.
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
    """Train a policy on groups of scored candidates."""
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
    """Return (sum w)^2 / sum w^2 of weights given by their logarithms, [...] from [..., G]."""
    scaled = (log_weights - log_weights.amax(-1, keepdim=True)).exp()
    return scaled.sum(-1).square() / scaled.square().sum(-1)


def _share_in_use(log_ratio: Tensor, keep: Tensor) -> Tensor:
    size = effective_sample_size(log_ratio.masked_fill(~keep, -torch.inf))
    return (size / keep.sum(-1).clamp(min=1)).mean()
