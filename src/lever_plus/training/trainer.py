"""What the training loops share: the optimiser step, the best epoch, going on after a kill.

Keys of a history row that is written at a dev evaluation:
`dev_reward` realised reward of the greedy pointers; `dev_accuracy` their official accuracy, mean
over shots; `dev_changed` share of greedy pointers that differ from those before training;
`dev_distinct_icds` how many different ICDs they use; `entropy`, `entropy_step_<t>` of the step
distributions along them, nats; `kl`, `kl_step_<t>` exact KL along them to the policy before
training, nats (a pointer's is the sum of its steps'); `alarm` where training has done nothing, or
all selections have become the same.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from lever_plus.config.training import OptimParams
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training import state as resume
from lever_plus.training.environment import DECODE_BATCH, Environment
from lever_plus.training.gradients import Gradients, PartOf

Row = dict[str, float | int | str]
"""One line of history.jsonl."""
Observe = Callable[[Row], None]
LOG = logging.getLogger("lever_plus")


@dataclass(frozen=True)
class Run:
    """A training run as the caller sees it.

    Attributes:
        seed: Order of the batches, and sampling.
        observe: Gets every history row; after a kill, those from before it once more.
        kept: File for the state after every epoch, to go on from; None keeps nothing.
        threads: Parts of a batch that are computed side by side.
    """

    seed: int
    observe: Observe
    kept: Path | None = None
    threads: int = 1


class Fitting:
    """Trains a policy and keeps its best epoch by realised reward on the dev queries.

    Test queries are never seen here. The policy before training is epoch 0 and may win.
    """

    def __init__(
        self,
        policy: Policy,
        environment: Environment,
        params: OptimParams,
        dev: Sequence[int],
        run: Run,
        steps: int,
        *,
        untrained: bool = False,
    ) -> None:
        """Score the policy as it is, or go on where an interrupted run was.

        Args:
            policy: Trained in place.
            environment: Pools, features and rewards.
            params: Optimiser, schedule, patience.
            dev: Queries that the epoch is chosen on.
            run: Seed, observer, kept state.
            steps: Optimiser steps of the whole training, for the schedule.
            untrained: The policy is random: a KL to it would say nothing, and its training has
                dropout, whose random numbers are drawn in the order of one thread.
        """
        self.policy, self.environment, self.params = policy, environment, params
        self.start = environment.frozen(policy)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.kept: dict[str, Tensor] = {}
        """Tensors of the loop itself (a round's candidates) that the state must hold."""
        self._dev, self._run, self._steps, self._untrained = dev, run, steps, untrained
        self._optimizer = torch.optim.AdamW(
            policy.parameters(),
            lr=params.learning_rate,
            weight_decay=params.weight_decay,
            fused=True,
        )
        parts = 1 if untrained else run.threads
        self._gradients = Gradients(policy.parameters(), parts)
        self.step, self.epoch, self._rows = 0, 0, list[Row]()
        self.best_reward, self.best_epoch, self._worse = -math.inf, 0, 0
        self._best: dict[str, Tensor] = {}
        self._selected: list[tuple[int, ...]] = []
        state = resume.read_state(run.kept) if run.kept else None
        if state:
            self._selected = environment.greedy_pointers(self.start.policy, dev)
            self._restore(state)
        else:
            self.evaluate(0, {})

    @property
    def progress(self) -> float:
        """Return the share of all optimiser steps that is done, in [0, 1]."""
        return min(1.0, self.step / max(1, self._steps - 1))

    def epochs(self, count: int, name: str) -> Iterator[int]:
        """Yield the epochs up to `count` that are still to do, until patience is at its end."""
        bar = tqdm(
            range(self.epoch + 1, count + 1),
            desc=f"{name} epochs",
            initial=self.epoch,
            total=count,
            disable=None,
        )
        for epoch in bar:
            if self.params.patience is not None and self._worse >= self.params.patience:
                return
            yield epoch

    def update(self, rows: Tensor, part: PartOf) -> dict[str, float]:
        """Take one optimiser step on a batch; return its figures.

        Args:
            rows: Row numbers of the batch.
            part: Computes loss and figures of some of the rows.

        Returns:
            The figures, `loss`, and `grad_norm` before clipping.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = self.params.learning_rate * self._rate()
        figures = self._gradients.of(rows, part)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.params.grad_clip)
        self._optimizer.step()
        self.step += 1
        return {**figures, "grad_norm": float(norm)}

    def _rate(self) -> float:
        """Return the learning rate of the coming step, as a share of the highest."""
        warmup = self.params.warmup
        if self.step < warmup:
            return (self.step + 1) / (warmup + 1)
        done = min(1.0, (self.step - warmup) / max(1, self._steps - warmup))
        match self.params.schedule:
            case "constant":
                return 1.0
            case "linear":
                return 1.0 - done
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))

    def evaluate(self, epoch: int, row: Mapping[str, float | int | str]) -> None:
        """Score the policy on dev, remember it if it is the best, write the row, keep the state."""
        realised = self.environment.realised(self.policy, self._dev)
        weights = torch.tensor(self.environment.shot_weights)
        reward = float((torch.from_numpy(realised.rewards) @ weights).mean())
        self._worse += 1
        if reward > self.best_reward:
            self.best_reward, self.best_epoch, self._worse = reward, epoch, 0
            self._best = {k: v.detach().clone() for k, v in self.policy.state_dict().items()}
        self._selected = self._selected if epoch else realised.pointers
        selections = _selections(realised.pointers, self._selected)
        alarm = self._alarm(realised.pointers) if epoch else {}
        figures = {
            **row,
            **self._distributions(realised.pointers),
            **selections,
            **alarm,
            "dev_accuracy": float(realised.accuracies.mean()),
            "dev_reward": reward,
        }
        self.finish(epoch, figures)

    def finish(self, epoch: int, row: Mapping[str, float | int | str]) -> None:
        """Write an epoch's row and keep the state."""
        self.epoch = epoch
        whole: Row = {"step": self.step, "epoch": epoch, **row}
        self._rows.append(whole)
        self._run.observe(whole)
        if self._run.kept:
            self._keep(self._run.kept)

    def best(self) -> Policy:
        """Return the policy with the weights of its best epoch, in eval mode."""
        self.policy.load_state_dict(self._best, strict=True)
        return self.policy.eval()

    def _alarm(self, pointers: Sequence[tuple[int, ...]]) -> Row:
        """Return what a person should look at: selections that did not move, or all collapsed."""
        places = {
            tuple(self.environment.pools.positions(query, pointer))
            for query, pointer in zip(self._dev, pointers, strict=True)
        }
        if list(pointers) == self._selected:
            text = "every dev selection is what it was before training"
        elif len(self._dev) > 1 and 1 in (len(places), len(set(pointers))):
            text = "all dev queries get the same selection"
        else:
            return {}
        LOG.warning("%s (step %d)", text, self.step)
        return {"alarm": text}

    @torch.no_grad()
    def _distributions(self, pointers: Sequence[tuple[int, ...]]) -> Row:
        """Return entropy, and KL to the policy before training, of the steps of dev pointers."""
        self.policy.eval()
        entropies, kls = [], []
        for begin in range(0, len(self._dev), DECODE_BATCH):
            part = self._dev[begin : begin + DECODE_BATCH]
            chosen = pointers[begin : begin + DECODE_BATCH]
            places = map(self.environment.pools.positions, part, chosen)
            positions = torch.tensor([[place] for place in places])
            encoded = self.environment.encode(self.policy, part)
            now = self.policy.steps(encoded, positions).joined()
            entropies.append(losses.entropy(now))
            kls.append(losses.exact_kl(now, self.start.steps(part, positions).joined()))
        entropy = _by_step("entropy", entropies, sum_up=False)
        return entropy if self._untrained else {**entropy, **_by_step("kl", kls, sum_up=True)}

    def _keep(self, path: Path) -> None:
        tensors = {
            **resume.prefixed("policy", self.policy.state_dict()),
            **resume.prefixed("best", self._best),
            **resume.prefixed("optimizer", resume.optimizer_tensors(self._optimizer)),
            **resume.prefixed("kept", self.kept),
            "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
        }
        facts = {
            "step": self.step,
            "epoch": self.epoch,
            "best_reward": self.best_reward,
            "best_epoch": self.best_epoch,
            "worse": self._worse,
            "rows": self._rows,
        }
        resume.save_state(path, tensors, facts)

    def _restore(self, state: resume.State) -> None:
        tensors, facts = state
        self.policy.load_state_dict(resume.unprefixed("policy", tensors), strict=True)
        self._best = resume.unprefixed("best", tensors)
        resume.restore_optimizer(self._optimizer, resume.unprefixed("optimizer", tensors))
        self.kept = resume.unprefixed("kept", tensors)
        self.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["dropout"])
        self.step, self.epoch = facts["step"], facts["epoch"]
        self.best_reward, self.best_epoch = facts["best_reward"], facts["best_epoch"]
        self._worse, self._rows = facts["worse"], facts["rows"]
        for row in self._rows:
            self._run.observe(row)


def _selections(pointers: Sequence[tuple[int, ...]], before: Sequence[tuple[int, ...]]) -> Row:
    changed = sum(now != then for now, then in zip(pointers, before, strict=True))
    return {
        "dev_changed": changed / max(1, len(pointers)),
        "dev_distinct_icds": len({i for pointer in pointers for i in pointer}),
    }


def _by_step(name: str, parts: Sequence[Tensor], *, sum_up: bool) -> Row:
    """Return the mean of values [B, 1, T] at every step, and over (or summed over) the steps."""
    steps = torch.cat([part.flatten(0, 1) for part in parts]).mean(0)
    whole = steps.sum() if sum_up else steps.mean()
    numbered = {f"{name}_step_{t}": v for t, v in enumerate(steps.tolist(), start=1)}
    return {name: whole.item(), **numbered}


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of all batches of one epoch, in random order."""
    if count:  # an empty tensor splits into one empty part
        yield from torch.randperm(count, generator=generator).split(size)


class Means:
    """Running means of what an epoch logs."""

    def __init__(self) -> None:
        """Start empty."""
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
