"""The weights with the highest reward on dev, and how long ago training last improved on them."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lever_plus.policy.network import Policy
from lever_plus.training.state import StateDict, prefixed, unprefixed


class BestCheckpoint:
    """Remembers the weights of the best epoch; if several are equally good, of the first of them.

    Attributes:
        reward: Realised reward of the best epoch on dev.
        epoch: Number of the best epoch; 0 is the policy before training, which may be the best.
        weights: Weights of the best epoch, by name.
    """

    def __init__(self, patience: int | None = None) -> None:
        """Start without a best epoch.

        Args:
            patience: Number of evaluations in a row without an improvement that ends a training;
                None never ends it.
        """
        self.reward, self.epoch, self.weights = -math.inf, 0, dict[str, Tensor]()
        self._patience, self._worse = patience, 0

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` evaluations have brought no improvement."""
        return self._patience is not None and self._worse >= self._patience

    def offer(self, policy: Policy, epoch: int, reward: float) -> None:
        """Copy a policy's weights if its reward on dev is higher than any before."""
        self._worse += 1
        if reward > self.reward:
            self.reward, self.epoch, self._worse = reward, epoch, 0
            self.weights = {k: v.detach().clone() for k, v in policy.state_dict().items()}

    def state_dict(self) -> StateDict:
        """Return the best weights, their epoch and reward, and the evaluations since then."""
        weights = prefixed("weights", self.weights)
        return {**weights, "reward": self.reward, "epoch": self.epoch, "worse": self._worse}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another `BestCheckpoint`."""
        self.weights = unprefixed("weights", state)
        self.reward, self.epoch, self._worse = state["reward"], state["epoch"], state["worse"]
