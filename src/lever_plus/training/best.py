"""The best checkpoint of a training by its reward on dev, and how long it has been the best."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lever_plus.policy.network import Policy
from lever_plus.training.state import StateDict, prefixed, unprefixed


class BestCheckpoint:
    """Remembers the weights of the best epoch; of equals, the first.

    Attributes:
        reward: Realised reward on dev of the best epoch.
        epoch: Its number; 0 is the policy before training, which may win.
        weights: Its weights, by name.
    """

    def __init__(self, patience: int | None = None) -> None:
        """Start with nothing.

        Args:
            patience: Number of worse evaluations that end a training; None: none do.
        """
        self.reward, self.epoch, self.weights = -math.inf, 0, dict[str, Tensor]()
        self._patience, self._worse = patience, 0

    @property
    def exhausted(self) -> bool:
        """Whether as many evaluations as patience allows have brought nothing better."""
        return self._patience is not None and self._worse >= self._patience

    def offer(self, policy: Policy, epoch: int, reward: float) -> None:
        """Take the weights of a policy if none had a reward as high."""
        self._worse += 1
        if reward > self.reward:
            self.reward, self.epoch, self._worse = reward, epoch, 0
            self.weights = {k: v.detach().clone() for k, v in policy.state_dict().items()}

    def state_dict(self) -> StateDict:
        """Return the best weights, where they came from, and the evaluations since then."""
        weights = prefixed("weights", self.weights)
        return {**weights, "reward": self.reward, "epoch": self.epoch, "worse": self._worse}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what another checkpoint remembered."""
        self.weights = unprefixed("weights", state)
        self.reward, self.epoch, self._worse = state["reward"], state["epoch"], state["worse"]
