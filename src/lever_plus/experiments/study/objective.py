"""One trial: train off-line on the RL data, and compare with the RCE-only policy on dev.

Objective: paired difference of dev accuracy (mean over shots), trial minus baseline, averaged over
the same training seeds. The KL to the RCE policy is a constraint. All seeds' epochs are reported,
so that a pruner may end a trial between epochs and between seeds. Test questions are not read.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.names import RCE
from lever_plus.config.params import Params
from lever_plus.pipeline import paths
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.network import Policy
from lever_plus.training.grpo import train_grpo
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Fitting, Row, Run

Accuracies = NDArray[np.float64]
Report = Callable[[int, Row], None]
"""Gets the number of a report and a history row; may raise to end the trial."""


class DivergedError(Exception):
    """The loss is no number any more."""


class Measured(NamedTuple):
    """What a seed of a trial gave on dev.

    difference: paired difference to the baseline, [questions]; accuracies: by shot; kl: nats a
    pointer; reward: best realised reward.
    """

    difference: Accuracies
    accuracies: list[float]
    kl: float
    reward: float


class Trials:
    """Data and policies that all trials of a process share."""

    def __init__(self, params: Params) -> None:
        """Read nothing yet."""
        self.params = params
        self.workspace = Workspace(params)

    @cached_property
    def dev(self) -> list[int]:
        """Dev queries."""
        return self.workspace.queries("dev")

    @cached_property
    def identity(self) -> str:
        """Return a hash of what all trials share: RL data, SFT and RCE policies, and params."""
        digest = hashlib.sha256(self.params.model_dump_json().encode())
        name = next(iter(self.params.rce.tau))
        rce = [paths.offline(name, s) / paths.POLICY for s in self.params.training_seeds]
        for path in (paths.RECORDS, paths.SFT / paths.POLICY, *rce):
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()

    def measure(self, params: Params, epochs: int, seed: int, report: Report) -> Measured:
        """Train with changed params and compare on dev.

        Args:
            params: params.yaml with a trial's changes.
            epochs: Of GRPO; 0 stops at the RCE policy.
            seed: Training seed.
            report: Sees every epoch.

        Raises:
            DivergedError: A loss became nan or infinite.
        """
        workspace = Workspace(params)
        workspace.__dict__.update(self._shared())
        policy = self._rce(workspace, seed)
        kl, reward = 0.0, math.nan
        if epochs:
            rows: list[Row] = []

            def observe(row: Row) -> None:
                if not math.isfinite(float(row.get("loss", 0.0))):
                    raise DivergedError(f"loss {row['loss']} in epoch {row['epoch']}")
                rows.append(row)
                report(int(row["epoch"]), row)

            fitting = train_grpo(
                policy,
                workspace.environment,
                workspace.groups(),
                self.dev,
                params.grpo,
                Run(seed, observe, threads=params.threads),
            )
            policy, reward = fitting.best(), fitting.best_reward
            kl = next(float(r["kl"]) for r in rows if r["epoch"] == fitting.best_epoch)
        accuracies = workspace.environment.realised(policy, self.dev).accuracies
        difference = accuracies.mean(axis=1) - self.baseline(seed).mean(axis=1)
        return Measured(difference, accuracies.mean(axis=0).tolist(), kl, reward)

    def baseline(self, seed: int) -> Accuracies:
        """Return the dev accuracies of the RCE-only policy of params.yaml, [questions, shots]."""
        if seed not in self._baselines:
            policy = self._rce(self.workspace, seed)
            realised = self.workspace.environment.realised(policy, self.dev)
            self._baselines[seed] = np.asarray(realised.accuracies, dtype=np.float64)
        return self._baselines[seed]

    @cached_property
    def _baselines(self) -> dict[int, Accuracies]:
        return {}

    @cached_property
    def _trained(self) -> dict[tuple[str, int], Fitting]:
        return {}

    def _rce(self, workspace: Workspace, seed: int) -> Policy:
        """Return the RCE policy: the pipeline's where nothing differs, else trained, once."""
        params = workspace.params
        name = next(iter(params.rce.tau))
        same = all(
            getattr(params, part) == getattr(self.params, part) for part in (RCE, "reward", "rl")
        )
        if same and (paths.offline(name, seed) / paths.POLICY).is_file():
            return workspace.load_policy(paths.offline(name, seed))
        key = (repr((params.rce, params.reward, params.rl)), seed)
        if key not in self._trained:
            self._trained[key] = train_rce(
                workspace.load_policy(paths.SFT),
                workspace.environment,
                workspace.groups(),
                self.dev,
                params.rce,
                params.rce.tau[name],
                Run(seed, lambda _row: None, threads=params.threads),
            )
        return deepcopy(self._trained[key].best())

    def _shared(self) -> Mapping[str, object]:
        """Return what does not depend on a trial's values."""
        shared = self.workspace
        names = ("splits", "pools", "embeddings", "vlm")
        return {name: getattr(shared, name) for name in names}
