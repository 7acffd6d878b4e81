"""What a policy does on the dev queries, and how far it has moved since before training.

Keys of a history row that come from a dev evaluation:
`dev_reward` realised reward of the greedy pointers; `dev_accuracy` their official accuracy, mean
over shots; `dev_changed` share of greedy pointers that differ from those before training;
`dev_distinct_icds` how many different ICDs they use; `entropy`, `entropy_step_<t>` of the step
distributions along them, nats; `kl`, `kl_step_<t>` exact KL along them to the policy before
training, nats (a pointer's is the sum of its steps'); `alarm` where training has done nothing, or
all selections have become the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lever_plus.policy.encoding import DECODE_BATCH
from lever_plus.policy.network import Policy
from lever_plus.training import losses
from lever_plus.training.environment import Environment, Frozen, Realised
from lever_plus.training.state import StateDict
from lever_plus.training.trainer import Row

Pointers = Sequence[tuple[int, ...]]


class DevEvaluator:
    """Scores a policy by its greedy pointers on dev. Test queries are never seen here."""

    def __init__(
        self, environment: Environment, dev: Sequence[int], reference: Frozen | None
    ) -> None:
        """Keep what it evaluates with.

        Args:
            environment: Pools, features and rewards.
            dev: Queries that the epoch is chosen on.
            reference: The policy before training; None if that is random, so that a KL to it would
                say nothing.
        """
        self._environment, self._dev, self._reference = environment, dev, reference
        self._before: Pointers | None = None

    @property
    def requests(self) -> int:
        """How many requests the VLM had so far, whatever they were for."""
        return self._environment.scorer.requests

    def evaluate(self, policy: Policy) -> Row:
        """Return what a history row says about a policy on dev.

        The first policy is the one before training, whose selections later ones are compared with.
        """
        realised = self._environment.realised(policy, self._dev)
        distributions = self._distributions(policy, realised.pointers)
        alarm = {} if self._before is None else self._alarm(realised.pointers, self._before)
        self._before = realised.pointers if self._before is None else self._before
        return {
            **distributions,
            **_selections(realised.pointers, self._before),
            **alarm,
            **self.figures(policy, realised),
        }

    def figures(self, policy: Policy, realised: Realised) -> Row:  # noqa: ARG002
        """Return what the selections of a policy are worth."""
        weights = torch.tensor(self._environment.shot_weights)
        return {
            "dev_accuracy": float(realised.accuracies.mean()),
            "dev_reward": float((torch.from_numpy(realised.rewards) @ weights).mean()),
        }

    def state_dict(self) -> StateDict:
        """Return the selections before training."""
        return {"before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with the selections before training that another evaluator saw."""
        self._before = [tuple(pointer) for pointer in state["before"]]

    def _alarm(self, pointers: Pointers, before: Pointers) -> Row:
        """Return what a person should look at: selections that did not move, or all collapsed."""
        places = {
            tuple(self._environment.pools.positions(query, pointer))
            for query, pointer in zip(self._dev, pointers, strict=True)
        }
        if pointers == before:
            return {"alarm": "every dev selection is what it was before training"}
        if len(self._dev) > 1 and 1 in (len(places), len(set(pointers))):
            return {"alarm": "all dev queries get the same selection"}
        return {}

    @torch.no_grad()
    def _distributions(self, policy: Policy, pointers: Pointers) -> Row:
        """Return entropy, and KL to the policy before training, of the steps of dev pointers."""
        policy.eval()
        entropies, kls = [], []
        for begin in range(0, len(self._dev), DECODE_BATCH):
            part = self._dev[begin : begin + DECODE_BATCH]
            chosen = pointers[begin : begin + DECODE_BATCH]
            places = map(self._environment.pools.positions, part, chosen)
            positions = torch.tensor([[place] for place in places])
            encoded = self._environment.encode(policy, part)
            now = policy.steps(encoded, positions).joined()
            entropies.append(losses.entropy(now))
            if self._reference:
                then = self._reference.steps(part, positions).joined()
                kls.append(losses.exact_kl(now, then))
        entropy = _by_step("entropy", entropies, sum_up=False)
        return {**entropy, **_by_step("kl", kls, sum_up=True)} if kls else entropy


def _selections(pointers: Pointers, before: Pointers) -> Row:
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
