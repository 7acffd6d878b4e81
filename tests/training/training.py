"""Trainings with every loss on the identity task, either long enough to solve it or very short."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identity_task import IdentityTask, make_task
from lever_plus.config.grpo import GrpoParams
from lever_plus.config.offline import AgroParams, ConstantGroups, RceParams, TauSchedule
from lever_plus.config.policy import PointerParams
from lever_plus.config.sft import SftParams
from lever_plus.config.stop import StopParams
from lever_plus.policy.network import Policy
from lever_plus.training.agro import train_agro
from lever_plus.training.groups import Groups
from lever_plus.training.grpo import train_grpo
from lever_plus.training.loop import Trained
from lever_plus.training.rce import train_rce
from lever_plus.training.sft import train_sft, train_sft_beams
from lever_plus.training.stop import train_stop
from lever_plus.training.trainer import Row, Run

OPTIM: dict[str, Any] = {
    "learning_rate": 5e-3,
    "schedule": "constant",
    "warmup": 0,
    "batch_size": 8,
    "weight_decay": 0.0,
    "grad_clip": 1.0,
}
SFT = SftParams(
    **OPTIM,
    targets={"sft": "scores"},
    epochs=20,
    patience=None,
    temperature=0.05,
    dropout=0.0,
    dev_every=1,
)
TAU = TauSchedule(start=0.3, end=0.1)
RCE = RceParams(**OPTIM, epochs=10, credit="reward_to_go", dropout=0.0, tau={"rce": TAU})
GRPO = GrpoParams(
    **OPTIM,
    epochs=2,
    rounds=6,
    group_size=8,
    start="rce",
    credit="reward_to_go",
    advantage="leave_one_out",
    ratio="step",
    clip_low=0.2,
    clip_high=0.28,
    kl="exact",
    kl_beta=0.001,
    kl_target=None,
)
AGRO = AgroParams(**OPTIM, epochs=15, credit="total", beta=0.1, rounds=0, group_size=4)
POINTER = PointerParams(shots=3, price=0.3, price_per="demonstration")
STOP = StopParams(
    **OPTIM, epochs=2, head_rate=3.0, passes=30, rounds=1, fixed_share=0.5, prices=[0.0, 0.3, 1.2]
)
OFFLINE = GRPO.model_copy(update={"rounds": 0})


class KilledError(Exception):
    """Stands in for the end of the process."""


@dataclass
class Watch:
    """Keeps the history, and ends the training when the row of an epoch is written."""

    killed_at: int | None = None
    history: list[Row] = field(default_factory=list)

    def __call__(self, row: Row) -> None:
        """Take a row."""
        self.history.append(row)
        if row["epoch"] == self.killed_at:
            raise KilledError


@dataclass(frozen=True)
class Outcome:
    """A finished training."""

    trained: Trained
    history: list[Row]

    @property
    def weights(self) -> Tensor:
        """Return the last weights in one vector, whatever the best epoch was."""
        return torch.cat([p.detach().flatten() for p in self.trained.policy.parameters()])


def sft(
    task: IdentityTask,
    policy: Policy,
    params: SftParams = SFT,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    threads: int = 2,
) -> Outcome:
    watch = watch or Watch()
    run = Run(seed, watch, kept, threads)
    trained = train_sft(policy, task.environment, task.searches(), task.dev, params, run)
    return Outcome(trained, watch.history)


def sft_beams(
    task: IdentityTask,
    policy: Policy,
    params: SftParams = SFT,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    threads: int = 2,
) -> Outcome:
    watch = watch or Watch()
    run, searches = Run(seed, watch, kept, threads), task.searches()
    trained = train_sft_beams(policy, task.environment, searches, 2, task.dev, params, run)
    return Outcome(trained, watch.history)


def rce(
    task: IdentityTask,
    policy: Policy,
    params: RceParams = RCE,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    groups: Groups | None = None,
    threads: int = 2,
    constant_groups: ConstantGroups = "drop",
) -> Outcome:
    watch, groups = watch or Watch(), groups or task.groups(size=32)
    run, tau = Run(seed, watch, kept, threads), params.tau["rce"]
    trained = train_rce(
        policy, task.environment, groups, task.dev, params, tau, run, constant_groups
    )
    return Outcome(trained, watch.history)


def agro(
    task: IdentityTask,
    policy: Policy,
    params: AgroParams = AGRO,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    groups: Groups | None = None,
    threads: int = 2,
    constant_groups: ConstantGroups = "drop",
) -> Outcome:
    watch, groups = watch or Watch(), groups or task.groups(size=32)
    run = Run(seed, watch, kept, threads)
    trained = train_agro(policy, task.environment, groups, task.dev, params, run, constant_groups)
    return Outcome(trained, watch.history)


def grpo(
    task: IdentityTask,
    policy: Policy,
    params: GrpoParams = GRPO,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    groups: Groups | None = None,
    threads: int = 2,
    constant_groups: ConstantGroups = "drop",
) -> Outcome:
    watch, groups = watch or Watch(), groups or task.groups(size=8)
    run = Run(seed, watch, kept, threads)
    trained = train_grpo(policy, task.environment, groups, task.dev, params, run, constant_groups)
    return Outcome(trained, watch.history)


def stop(
    task: IdentityTask,
    policy: Policy,
    params: StopParams = STOP,
    seed: int = 0,
    kept: Path | None = None,
    watch: Watch | None = None,
    pointer: PointerParams = POINTER,
    threads: int = 2,
) -> Outcome:
    watch = watch or Watch()
    run = Run(seed, watch, kept, threads)
    trained = train_stop(policy, task.environment, task.train, task.dev, params, GRPO, pointer, run)
    return Outcome(trained, watch.history)


def short_sft(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return sft(task, policy, SFT.model_copy(update={"epochs": 2}), seed)


def short_sft_beams(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return sft_beams(task, policy, SFT.model_copy(update={"epochs": 2}), seed)


def short_rce(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return rce(task, policy, RCE.model_copy(update={"epochs": 2}), seed)


def short_agro(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return agro(task, policy, AGRO.model_copy(update={"epochs": 2}), seed)


def short_agro_rounds(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return agro(task, policy, AGRO.model_copy(update={"epochs": 1, "rounds": 1}), seed)


def short_grpo(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return grpo(task, policy, GRPO.model_copy(update={"rounds": 2}), seed)


def short_offline(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return grpo(task, policy, OFFLINE, seed)


def short_stop(task: IdentityTask, policy: Policy, seed: int = 0) -> Outcome:
    return stop(task, policy, STOP.model_copy(update={"passes": 0}), seed)


Train = Callable[..., Outcome]
FEW: dict[Train, Any] = {
    sft: SFT.model_copy(update={"epochs": 2}),
    sft_beams: SFT.model_copy(update={"epochs": 2}),
    rce: RCE.model_copy(update={"epochs": 2}),
    agro: AGRO.model_copy(update={"epochs": 2}),
    grpo: OFFLINE,
    stop: STOP.model_copy(update={"passes": 2}),
}
ALL_SHORT = [
    *(short_sft, short_sft_beams, short_rce, short_agro, short_agro_rounds),
    *(short_grpo, short_offline, short_stop),
]
"""Every loss, online and offline, for two or four epochs."""


def dev_reward(task: IdentityTask, policy: Policy) -> float:
    """Return the realised reward of a policy on the dev queries, summed as training does it."""
    rewards = torch.from_numpy(task.environment.realised(policy, task.dev).rewards)
    return float((rewards @ torch.tensor(task.environment.shot_weights)).mean())


@functools.cache
def _solved() -> Policy:
    task = make_task()
    return sft(task, task.policy()).trained.best()


def solved() -> Policy:
    """Return a policy that has learned the task by SFT."""
    return copy.deepcopy(_solved())
