"""What a policy does on the dev queries, and how far it has moved from where training began.

A dev evaluation writes these keys into a history row; all are about the policy's greedy pointers:
    dev_reward           their realised reward
    dev_accuracy         their VQA accuracy, mean over shots
    dev_changed          share of them that differ from those before training
    dev_distinct_icds    how many different demonstrations they use
    entropy              entropy of the step distributions along them, nats, mean over steps
    entropy_step_<t>     the same at step t
    kl                   exact KL to the policy before training along them, nats, sum over steps
    kl_step_<t>          the same at step t
    alarm                a sentence, if training has changed no selection or all have become equal
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
        """Keep what is needed to evaluate a policy.

        Args:
            environment: Pools, features and rewards.
            dev: Queries on which the best epoch is chosen.
            reference: The policy before training; None if that policy is random, because a KL to
                it would say nothing.
        """
        self._environment, self._dev, self._reference = environment, dev, reference
        self._before: Pointers | None = None

    @property
    def requests(self) -> int:
        """Number of requests to the VLM so far, whatever they were for."""
        return self._environment.scorer.requests

    def evaluate(self, policy: Policy) -> Row:
        """Return what a history row says about a policy on dev.

        The first call must be with the policy before training: the selections of later calls are
        compared with its selections.
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
        """Return the accuracy and the reward of a policy's selections."""
        weights = torch.tensor(self._environment.shot_weights)
        return {
            "dev_accuracy": float(realised.accuracies.mean()),
            "dev_reward": float((torch.from_numpy(realised.rewards) @ weights).mean()),
        }

    def state_dict(self) -> StateDict:
        """Return the selections before training."""
        return {"before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the selections before training from another evaluator."""
        self._before = [tuple(pointer) for pointer in state["before"]]

    def _alarm(self, pointers: Pointers, before: Pointers) -> Row:
        """Return a warning if no selection has changed, or if all queries get the same one."""
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
        """Return the entropy of the dev pointers' steps, and the KL if there is a reference."""
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
    """Return the mean of values [B, 1, T] at every step, and the sum or mean of these means."""
    steps = torch.cat([part.flatten(0, 1) for part in parts]).mean(0)
    whole = steps.sum() if sum_up else steps.mean()
    numbered = {f"{name}_step_{t}": v for t, v in enumerate(steps.tolist(), start=1)}
    return {name: whole.item(), **numbered}
