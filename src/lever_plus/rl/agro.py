"""AGRO: group-variance regression on the RL data; the best founded off-line objective.

loss = mean Var_group[R - beta log(pi / reference)] / (2 beta), see `losses.agro`. The reference is
the policy at the start, frozen. Its optimum is reference exp(R / beta), the solution of the
KL-regularised problem, for any list that holds more than one pointer: so beams, samples and random
candidates may stand in it together. `log_ratio` in the history is the mean of log(pi / reference)
over the listed pointers: where it falls without end, beta is too small.
"""

from collections.abc import Sequence

from torch import Tensor

from lever_plus.params import AgroParams
from lever_plus.policy.network import Selector
from lever_plus.rl import losses
from lever_plus.rl.environment import Environment
from lever_plus.rl.fitting import Fitting, Observe
from lever_plus.rl.groups import Groups
from lever_plus.rl.offline import Batch, Objective, pointer_log_probs, train_offline


def train_agro(
    policy: Selector,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: AgroParams,
    seed: int,
    observe: Observe,
) -> Fitting:
    """Train a policy on groups of scored candidates and return the fitting with its best epoch."""

    def objective(informative: Groups) -> Objective:
        reference = pointer_log_probs(policy, environment, informative)

        def log_ratio(batch: Batch) -> Tensor:
            return batch.log_probs.detach().sum(-1) - reference[batch.rows]

        return Objective(
            loss=lambda batch: losses.agro(
                batch.log_probs, reference[batch.rows], batch.returns, batch.keep, params.beta
            ),
            figures=lambda batch: {"log_ratio": log_ratio(batch)[batch.keep].mean().item()},
        )

    return train_offline(policy, environment, groups, dev, params, objective, seed, observe)
