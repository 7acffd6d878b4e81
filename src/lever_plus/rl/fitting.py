"""What the three training loops share: the optimiser step, and the choice of the best epoch."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lever_plus.params import OptimParams
from lever_plus.policy.network import Selector
from lever_plus.rl.environment import Environment

Row = dict[str, float | int | str]
"""One line of history.jsonl."""
Observe = Callable[[Row], None]


class Fitting:
    """Trains a policy and keeps its best epoch by realised reward on the dev queries.

    Test queries are never seen here. The policy before training is epoch 0 and may win.
    """

    def __init__(
        self,
        policy: Selector,
        environment: Environment,
        params: OptimParams,
        dev: Sequence[int],
        observe: Observe,
    ) -> None:
        """Score the policy as it is."""
        self.policy, self.environment, self.params = policy, environment, params
        self._dev, self._observe = dev, observe
        self._optimizer = torch.optim.AdamW(
            policy.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        self.step = 0
        self.best_reward = -1.0
        self.best_epoch = 0
        self._best: dict[str, Tensor] = {}
        self.evaluate(0, {})

    def update(self, loss: Tensor) -> float:
        """Take one optimiser step; return the norm of the gradient before clipping."""
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.params.grad_clip)
        self._optimizer.step()
        self.step += 1
        return float(norm)

    def evaluate(self, epoch: int, row: Row) -> float:
        """Score the policy on dev, remember it if it is the best, and write the history row."""
        reward = self.environment.realised_reward(self.policy, self._dev)
        if reward > self.best_reward:
            self.best_reward, self.best_epoch = reward, epoch
            self._best = {k: v.detach().clone() for k, v in self.policy.state_dict().items()}
        self.write({"epoch": epoch, **row, "dev_reward": reward})
        return reward

    def write(self, row: Row) -> None:
        """Write a history row."""
        self._observe({"step": self.step, **row})

    def best(self) -> Selector:
        """Return the policy with the weights of its best epoch, in eval mode."""
        self.policy.load_state_dict(self._best, strict=True)
        return self.policy.eval()


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of all batches of one epoch, in random order."""
    if count:  # an empty tensor splits into one empty part
        yield from torch.randperm(count, generator=generator).split(size)


def epochs(count: int, name: str) -> Iterable[int]:
    """Return the epochs 1..count behind a progress bar (quiet where there is no terminal)."""
    bar: Iterable[int] = tqdm(range(1, count + 1), desc=f"{name} epochs", disable=None)
    return bar


class Means:
    """Running means of what an epoch logs."""

    def __init__(self) -> None:
        """Start empty."""
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, values: dict[str, float]) -> None:
        """Add one step's values."""
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def row(self) -> Row:
        """Return the means."""
        return {name: value / self._count for name, value in self._sums.items()}
