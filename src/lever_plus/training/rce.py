"""RCE: reward-weighted cross-entropy on the RL data; the baseline that GRPO starts from.

The candidates of a group have the weights softmax(R_t / tau); tau changes linearly over the
optimiser steps, from its start to its end value. R_t is the weighted mean reward of the shots that
step t can change, or of all shots with `credit: total`. What tau means depends on the range of R:
with R in [0, 2] and tau 2, the best candidate's weight is at most e times that of the worst. The
loss is not compared with another policy's log-probs, so dropout may be on: `rce.dropout` replaces
the network's own.
"""

from collections.abc import Sequence

from lever_plus.config.offline import ConstantGroups, RceParams, TauSchedule
from lever_plus.policy.kinds import with_dropout
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups
from lever_plus.training.loop import Trained
from lever_plus.training.offline import Batch, Objective, train_offline
from lever_plus.training.returns import mean_to_go, total
from lever_plus.training.trainer import Run


def train_rce(
    policy: Policy,
    environment: Environment,
    groups: Groups,
    dev: Sequence[int],
    params: RceParams,
    tau: TauSchedule,
    run: Run,
    constant_groups: ConstantGroups = "drop",
) -> Trained:
    """Train a copy of a policy on groups of scored candidates.

    Args:
        policy: The policy to start from; it is not changed.
        environment: Pools, features and rewards.
        groups: Scored candidates of the training queries.
        dev: Queries on which the best epoch is chosen.
        params: Credit, dropout, epochs and optimiser.
        tau: Temperature at the first and at the last optimiser step, in units of the reward.
        run: Seed, observer, and the file that keeps the state.
        constant_groups: Whether groups that are constant at every step are left out ("drop").
    """

    def now(batch: Batch) -> float:
        return tau.start + (tau.end - tau.start) * batch.progress

    objective = Objective(
        loss=lambda batch: losses.rce(batch.log_probs, batch.returns, batch.keep, now(batch)),
        figures=lambda batch: {"tau": now(batch)},
    )
    credit = mean_to_go if params.credit == "reward_to_go" else total
    return train_offline(
        with_dropout(policy, params.dropout),
        environment,
        groups,
        dev,
        params,
        credit,
        lambda _groups: objective,
        run,
        constant_groups=constant_groups,
        dropout=True,
    )
