"""One trial: train off-line on the RL data, and compare with the RCE-only policy on dev.

Objective: paired difference of dev accuracy (mean over shots), trial minus baseline, averaged over
the same training seeds. The KL to the RCE policy is a constraint. All seeds' epochs are reported,
so that a pruner may end a trial between epochs and between seeds. Test questions are not read.
"""

import hashlib
import math
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.names import RCE
from lever_plus.config.params import Params
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.network import Policy
from lever_plus.training.environment import Environment
from lever_plus.training.grpo import train_grpo
from lever_plus.training.loop import Trained
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Row, Run
from lever_plus.vlm.store.cached import StoredVlm

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

    def __init__(self, params: Params, paths: Paths, vlm: StoredVlm | None = None) -> None:
        """Read nothing yet.

        Args:
            params: params.yaml.
            paths: The pipeline's outputs.
            vlm: The VLM, where it is open already.
        """
        self.params, self.paths = params, paths
        self.workspace = Workspace(paths, params.vlm, params.scoring, vlm)
        self._baselines: dict[int, Accuracies] = {}
        self._trained: dict[tuple[str, int], Trained] = {}

    @cached_property
    def dev(self) -> list[int]:
        """Dev queries."""
        return self.workspace.queries("dev")

    @cached_property
    def identity(self) -> str:
        """Return a hash of what all trials share: RL data, SFT and RCE policies, and params."""
        digest = hashlib.sha256(self.params.model_dump_json().encode())
        name = next(iter(self.params.rce.tau))
        paths = self.paths
        rce = [weights_of(paths.offline(name, s)) for s in self.params.training_seeds]
        for path in (paths.records, weights_of(paths.sft), *rce):
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
        policy = self._rce(params, seed)
        kl, reward = 0.0, math.nan
        if epochs:
            rows: list[Row] = []

            def observe(row: Row) -> None:
                if not math.isfinite(float(row.get("loss", 0.0))):
                    raise DivergedError(f"loss {row['loss']} in epoch {row['epoch']}")
                rows.append(row)
                report(int(row["epoch"]), row)

            trained = train_grpo(
                policy,
                self._environment(params),
                self.workspace.groups(params.reward, params.rl),
                self.dev,
                params.grpo,
                Run(seed, observe, threads=params.threads),
            )
            policy, reward = trained.best(), trained.best_reward
            kl = next(float(r["kl"]) for r in rows if r["epoch"] == trained.best_epoch)
        accuracies = self._environment(params).realised(policy, self.dev).accuracies
        difference = accuracies.mean(axis=1) - self.baseline(seed).mean(axis=1)
        return Measured(difference, accuracies.mean(axis=0).tolist(), kl, reward)

    def baseline(self, seed: int) -> Accuracies:
        """Return the dev accuracies of the RCE-only policy of params.yaml, [questions, shots]."""
        if seed not in self._baselines:
            policy = self._rce(self.params, seed)
            realised = self._environment(self.params).realised(policy, self.dev)
            self._baselines[seed] = np.asarray(realised.accuracies, dtype=np.float64)
        return self._baselines[seed]

    def _environment(self, params: Params) -> Environment:
        return self.workspace.environment(params.pointer.shots, params.reward)

    def _rce(self, params: Params, seed: int) -> Policy:
        """Return the RCE policy: the pipeline's where nothing differs, else trained, once."""
        workspace, paths = self.workspace, self.paths
        name = next(iter(params.rce.tau))
        same = all(
            getattr(params, part) == getattr(self.params, part) for part in (RCE, "reward", "rl")
        )
        if same and weights_of(paths.offline(name, seed)).is_file():
            return workspace.load_policy(paths.offline(name, seed))
        key = (repr((params.rce, params.reward, params.rl)), seed)
        if key not in self._trained:
            self._trained[key] = train_rce(
                workspace.load_policy(paths.sft),
                self._environment(params),
                workspace.groups(params.reward, params.rl),
                self.dev,
                params.rce,
                params.rce.tau[name],
                Run(seed, lambda _row: None, threads=params.threads),
            )
        return deepcopy(self._trained[key].best())
