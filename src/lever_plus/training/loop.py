"""The epochs of a training, whatever its loss: history, patience, and resuming after a kill."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from lever_plus.errors import UserError
from lever_plus.policy.network import Policy
from lever_plus.training.best import BestCheckpoint
from lever_plus.training.dev import DevEvaluator
from lever_plus.training.state import (
    StateDict,
    Stateful,
    prefixed,
    read_state,
    save_state,
    unprefixed,
)
from lever_plus.training.trainer import Row, Run, Trainer

LOG = logging.getLogger("lever_plus")


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        policy: The policy, with the weights of its last step.
        step: Optimiser steps taken.
        best_epoch: The epoch with the highest realised reward on dev.
        best_reward: That reward.
        requests: Requests to the VLM, including those that the store answered and those of an
            earlier process that was killed.
        weights: Weights of the best epoch, by name.
    """

    policy: Policy
    step: int
    best_epoch: int
    best_reward: float
    requests: int
    weights: Mapping[str, Tensor]

    def best(self) -> Policy:
        """Return the policy with the weights of its best epoch, in eval mode."""
        self.policy.load_state_dict(self.weights, strict=True)
        return self.policy.eval()


class Loop:
    """Counts the epochs of a training, writes its history and keeps its state.

    The state combines the states of all parts of the training; it is saved after every epoch if
    `run.kept` names a file.
    """

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        evaluator: DevEvaluator,
        best: BestCheckpoint,
        **own: Stateful,
    ) -> None:
        """Put the parts of a training together.

        Args:
            run: Observer, and the file that keeps the state.
            trainer: Takes the optimiser steps.
            evaluator: Scores the policy on dev.
            best: Remembers the best epoch.
            **own: What else the method needs in order to resume, such as a round's candidates.
        """
        self._run, self._trainer, self._evaluator, self._best = run, trainer, evaluator, best
        self._parts: dict[str, Stateful] = {
            "trainer": trainer,
            "evaluator": evaluator,
            "best": best,
            **own,
        }
        self._epoch, self._rows = 0, list[Row]()
        # Requests that others made before; below 0 after resuming epochs of another process.
        self._asked_before = evaluator.requests

    def begin(self) -> None:
        """Resume an interrupted training, or score the policy before training (epoch 0).

        Raises:
            UserError: The kept state does not fit this training.
        """
        state = read_state(self._run.kept) if self._run.kept else None
        if state is None:
            self.evaluate(0, {})
            return
        try:
            self.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{self._run.kept} holds a state that this training can't resume from ({error}): "
                "remove the file, and the training starts from the beginning."
            ) from error
        for row in self._rows:
            self._run.observe(row)

    def epochs(self, count: int, name: str) -> Iterator[int]:
        """Yield the numbers of the remaining epochs up to `count`, until patience runs out."""
        bar = tqdm(
            range(self._epoch + 1, count + 1),
            desc=f"{name} epochs",
            initial=self._epoch,
            total=count,
            disable=None,
        )
        for epoch in bar:
            if self._best.exhausted:
                return
            yield epoch

    def evaluate(self, epoch: int, row: Mapping[str, float | int | str]) -> None:
        """Score the policy on dev, remember it if it is the best so far, and finish the epoch."""
        policy = self._trainer.policy
        figures = self._evaluator.evaluate(policy)
        self._best.offer(policy, epoch, float(figures["dev_reward"]))
        if "alarm" in figures:
            LOG.warning("%s (step %d)", figures["alarm"], self._trainer.step)
        self.finish(epoch, {**row, **figures})

    def finish(self, epoch: int, row: Mapping[str, float | int | str]) -> None:
        """Write an epoch's row and keep the state."""
        self._epoch = epoch
        whole: Row = {
            "step": self._trainer.step,
            "epoch": epoch,
            "vlm_requests": self._requests,
            **row,
        }
        self._rows.append(whole)
        self._run.observe(whole)
        if self._run.kept:
            save_state(self._run.kept, self.state_dict())

    def trained(self) -> Trained:
        """Return the result of the training."""
        best, trainer = self._best, self._trainer
        step, requests = trainer.step, self._requests
        return Trained(trainer.policy, step, best.epoch, best.reward, requests, best.weights)

    @property
    def _requests(self) -> int:
        """Requests of this training so far."""
        return self._evaluator.requests - self._asked_before

    def state_dict(self) -> StateDict:
        """Return the states of all parts, the epoch and the history."""
        state: StateDict = {"epoch": self._epoch, "rows": self._rows}
        for name, part in self._parts.items():
            state |= prefixed(name, part.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another loop of the same training."""
        for name, part in self._parts.items():
            part.load_state_dict(unprefixed(name, state))
        self._epoch, self._rows = state["epoch"], state["rows"]
        self._asked_before = self._evaluator.requests - int(self._rows[-1]["vlm_requests"])
