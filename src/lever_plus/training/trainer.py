"""The optimiser steps of a training: batches, gradients, clipping and the learning rate."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
)

from lever_plus.config.optim import OptimParams
from lever_plus.policy.network import Policy
from lever_plus.training.gradients import Gradients, PartOf
from lever_plus.training.state import (
    StateDict,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    unprefixed,
)

NO_RATES: Final[Mapping[str, float]] = {}
Row = dict[str, float | int | str]
"""One line of history.jsonl."""
Observe = Callable[[Row], None]


@dataclass(frozen=True)
class Run:
    """A training run as the caller sees it.

    Attributes:
        seed: Seed of the batches' order, of dropout and of sampling.
        observe: Gets every history row; after a kill, also the earlier rows once more.
        kept: File that keeps the state after every epoch, to resume from; None keeps nothing.
        threads: Number of parts of a batch that are computed in parallel.
    """

    seed: int
    observe: Observe
    kept: Path | None = None
    threads: int = 1


class Trainer:
    """Takes optimiser steps on a policy.

    Attributes:
        policy: Trained in place.
        generator: Draws the order of the batches, and what a method samples.
        step: Optimiser steps taken.
    """

    def __init__(
        self,
        policy: Policy,
        params: OptimParams,
        run: Run,
        steps: int,
        rates: Mapping[str, float] = NO_RATES,
    ) -> None:
        """Make an optimiser for a policy.

        Args:
            policy: Trained in place.
            params: Optimiser and schedule.
            run: Seed, and the number of parts of a batch.
            steps: Optimiser steps of the whole training, for the schedule.
            rates: {prefix of parameter names: factor of the learning rate} for parameters that
                learn at a rate of their own.
        """
        self.policy, self.step = policy, 0
        self.generator = torch.Generator().manual_seed(run.seed)
        # A generator of its own, so that batches are the same with and without dropout.
        self._masks = torch.Generator().manual_seed(run.seed)
        self._grad_clip, self._steps = params.grad_clip, steps
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(policy, params.learning_rate, rates),
            lr=params.learning_rate,
            weight_decay=params.weight_decay,
            fused=True,
        )
        self._schedule = _schedule(self._optimizer, params, steps)
        self._gradients = Gradients(policy.parameters(), run.threads)

    @property
    def progress(self) -> float:
        """Return the share of all optimiser steps that has been taken, in [0, 1]."""
        return min(1.0, self.step / max(1, self._steps - 1))

    def update(self, rows: Tensor, part: PartOf, *, dropout: bool = False) -> dict[str, float]:
        """Take one optimiser step on a batch; return its figures.

        Args:
            rows: Row numbers of the batch.
            part: Computes loss and figures of some of the rows.
            dropout: Whether dropout is on; its masks depend on the number of parts.

        Returns:
            The figures of the parts, `loss`, and `grad_norm` (the gradient's norm before clipping).
        """
        figures = self._gradients.of(rows, part, self._masks if dropout else None)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._grad_clip)
        self._optimizer.step()
        self.step += 1
        # Fresh candidates may add steps that were not expected; a cosine would then rise again.
        if self.step <= self._steps:
            self._schedule.step()
        return {**figures, "grad_norm": float(norm)}

    def state_dict(self) -> StateDict:
        """Return the states of the weights, the optimiser, the schedule and the generators."""
        return {
            **prefixed("policy", self.policy.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self._optimizer)),
            "learning_rates": [group["lr"] for group in self._optimizer.param_groups],
            "schedule": self._schedule.state_dict(),
            "generator": self.generator.get_state(),
            "masks": self._masks.get_state(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another trainer of the same training."""
        self.policy.load_state_dict(unprefixed("policy", state), strict=True)
        restore_optimizer(self._optimizer, unprefixed("optimizer", state))
        for group, rate in zip(self._optimizer.param_groups, state["learning_rates"], strict=True):
            group["lr"] = rate
        self._schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self._masks.set_state(state["masks"])
        self.step = state["step"]


def _parameter_groups(
    policy: Policy, learning_rate: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the parameters, grouped by their learning rate."""
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in policy.named_parameters():
        factor = next((rates[start] for start in rates if name.startswith(start)), 1.0)
        groups.setdefault(factor, []).append(parameter)
    return [{"params": some, "lr": factor * learning_rate} for factor, some in groups.items()]


def _schedule(optimizer: torch.optim.Optimizer, params: OptimParams, steps: int) -> LRScheduler:
    """Return the schedule of the learning rate: a linear warm-up, then the schedule of `params`."""
    rest = max(1, steps - params.warmup)
    after: LRScheduler
    match params.schedule:
        case "constant":
            after = ConstantLR(optimizer, factor=1.0)
        case "linear":
            after = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=rest)
        case "cosine":
            after = CosineAnnealingLR(optimizer, T_max=rest)
    if not params.warmup:
        return after
    # The rise does not begin at 0: a first step with a learning rate of 0 would change nothing.
    first = 1 / (params.warmup + 1)
    rise = LinearLR(optimizer, start_factor=first, total_iters=params.warmup)
    return SequentialLR(optimizer, [rise, after], milestones=[params.warmup])


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of all batches of one epoch, in random order."""
    if count:  # an empty tensor splits into one empty part
        yield from torch.randperm(count, generator=generator).split(size)


class Means:
    """Running means of what an epoch logs."""

    def __init__(self) -> None:
        """Start without any value."""
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add one step's values."""
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def row(self) -> Row:
        """Return the means."""
        return {name: value / self._count for name, value in self._sums.items()}
