"""RCE: reward-weighted cross-entropy on the RL data; the baseline that GRPO starts from.

Weights are softmax(R_t / tau) over a group, with tau falling linearly over the optimiser steps. R_t
is the mean reward of the shots that a step can change, or with `credit: total` that of all shots.
What tau means depends on the range of R: with R in [0, 2] and tau 2 the best candidate weighs only
e times as much as the worst. Nothing is compared with another policy's log-probs, so dropout may be
on: `rce.dropout`, whatever the network had before.
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
    """Train a copy of a policy on groups of scored candidates."""

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
