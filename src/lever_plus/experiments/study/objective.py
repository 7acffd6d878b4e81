"""One trial: train offline on the RL data, and compare with the RCE-only policy on dev.

The objective is the paired difference of dev accuracy (mean over shots), trial minus baseline,
averaged over the same training seeds. The KL to the RCE policy is a constraint. A trial reports the
epochs of all seeds, including those of RCE if it trains RCE, so that a pruner may end it between
epochs or seeds. Test questions are not read.

All trials start from one SFT policy and one set of RL data, those of the first training seed. The
seed of a trial, or of promotion, is that of RCE and GRPO only. So the study does not see how much
SFT and the RL data vary from seed to seed; the pipeline's evaluation does. The pipeline's RCE
policies of other seeds come from other SFT policies, so no trial starts from them.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lever_plus.config.names import RCE, SFT
from lever_plus.config.params import Params
from lever_plus.data.examples import Example
from lever_plus.evaluation.statistics import Clusters
from lever_plus.experiments.study.space import first_tau
from lever_plus.files.reading import read_bytes
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.checkpoint import read_config
from lever_plus.policy.network import Policy
from lever_plus.training.environment import Environment
from lever_plus.training.groups import Groups
from lever_plus.training.grpo import train_grpo
from lever_plus.training.loop import Trained
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Row, Run
from lever_plus.vlm.scorer import METRIC
from lever_plus.vlm.store.cached import StoredVlm

Accuracies = NDArray[np.float64]
Report = Callable[[int, Row], None]
"""Gets the number of an epoch and its history row; may raise to end the trial.

The epochs of RCE are numbered from 0; those of GRPO, also from its epoch 0, follow them.
"""


OBJECTIVE: Final = 4
"""Increased with every code change that alters a trial's result, so that studies do not mix."""


class DivergedError(Exception):
    """The trial has no usable result, for example because its loss is not finite."""


class Measured(NamedTuple):
    """The result of one seed of a trial on dev.

    Attributes:
        difference: Paired difference from the baseline, mean over shots, [questions].
        accuracies: Mean accuracy at each shot.
        kl: KL to the RCE policy, nats per pointer.
        reward: Best realised reward; NaN if nothing was trained after RCE.
    """

    difference: Accuracies
    accuracies: list[float]
    kl: float
    reward: float


class Trials:
    """Data and policies that all trials of a process share."""

    def __init__(self, params: Params, paths: Paths, vlm: StoredVlm | None = None) -> None:
        """Keep where everything is; files are read when they are first needed.

        Args:
            params: Content of params.yaml.
            paths: Paths of the pipeline.
            vlm: The VLM, if it is already open.
        """
        self.params, self.paths = params, paths
        self.workspace = Workspace(paths, params.vlm, params.scoring, vlm)
        self._baselines: dict[int, Accuracies] = {}
        self._trained: dict[tuple[str, int], Trained] = {}
        self._newest: tuple[str, Groups] | None = None

    @property
    def first_seed(self) -> int:
        """Training seed of the SFT policy and the RL data that all trials start from."""
        return self.params.training_seeds[0]

    @cached_property
    def dev(self) -> list[int]:
        """Ids of the dev queries."""
        return self.workspace.queries("dev")

    @property
    def dev_images(self) -> Clusters:
        """A number for the image of each dev query, int [questions]; equal images are equal."""
        images = [example.image_sha256 for example in self.workspace.of_split("dev")]
        return np.unique(images, return_inverse=True)[1].astype(np.int64)

    def sources(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Return {what: its hash or name} for everything that trials are computed from.

        Paths do not count: a copy of the project in another place computes the same.

        Args:
            seeds: Seeds of the trials.
        """
        workspace, paths, (name, _) = self.workspace, self.paths, first_tau(self.params)
        examples = [workspace.of_split(split) for split in ("train", "dev")]
        first = self.first_seed
        starts = {"RCE policy": paths.trained(name, first)} if first in seeds else {}
        return {
            "objective": OBJECTIVE,
            "metric": METRIC,
            "VLM": dict(sorted(workspace.vlm.identity.items())),
            "examples": _digest(repr([_facts(e) for part in examples for e in part]).encode()),
            "pools": workspace.pools.sha256,
            "features": _digest(
                workspace.embeddings.space_sha256.encode(),
                repr(list(workspace.embeddings.rows.items())).encode(),
                read_bytes(paths.embed / "white.npy", "run `dvc repro embed`"),
            ),
            "RL data": _digest(read_bytes(paths.records(first), "run `dvc repro rl_data`")),
            "SFT policy": _policy(paths.trained(SFT, first)),
            **{what: _policy(folder) for what, folder in starts.items()},
        }

    def measure(self, params: Params, epochs: int, seed: int, report: Report) -> Measured:
        """Train with changed params, and compare with the baseline on dev.

        Args:
            params: params.yaml with a trial's changes.
            epochs: Epochs of GRPO; 0 stops at the RCE policy.
            seed: Seed of RCE and GRPO.
            report: Gets every epoch.

        Raises:
            DivergedError: A loss became NaN or infinite.
        """
        policy = self._rce(params, seed, partial(_report, report, 0))
        kl, reward = 0.0, math.nan
        if epochs:
            rows: list[Row] = []

            def observe(row: Row) -> None:
                rows.append(row)
                _report(report, params.rce.epochs + 1, row)

            trained = train_grpo(
                policy,
                self._environment(params),
                self._groups(params),
                self.dev,
                params.grpo,
                Run(seed, observe, threads=params.threads),
                params.rl.constant_groups,
            )
            policy, reward = trained.best(), trained.best_reward
            kl = next(float(r["kl"]) for r in rows if r["epoch"] == trained.best_epoch)
        accuracies = self._accuracies(params, policy)
        difference = accuracies.mean(axis=1) - self.baseline(seed).mean(axis=1)
        return Measured(difference, accuracies.mean(axis=0).tolist(), kl, reward)

    def baseline(self, seed: int) -> Accuracies:
        """Return the dev accuracies of the RCE-only policy of params.yaml, [questions, shots]."""
        if seed not in self._baselines:
            policy = self._rce(self.params, seed)
            self._baselines[seed] = self._accuracies(self.params, policy)
        return self._baselines[seed]

    def _accuracies(self, params: Params, policy: Policy) -> Accuracies:
        """Return the dev accuracies of a policy in double precision, [questions, shots].

        So the difference between equal policies is exactly 0.
        """
        realised = self._environment(params).realised(policy, self.dev)
        return np.asarray(realised.accuracies, dtype=np.float64)

    def _environment(self, params: Params) -> Environment:
        return self.workspace.environment(params.pointer.shots, params.reward)

    def _groups(self, params: Params) -> Groups:
        """Return the RL data as a trial sees them; its seeds share one copy."""
        key = repr((params.reward, params.rl))
        if self._newest is None or self._newest[0] != key:
            rl_data = self.paths.rl_data(self.first_seed)
            self._newest = key, self.workspace.groups(rl_data, params.reward, params.rl)
        return self._newest[1]

    def _rce(
        self, params: Params, seed: int, observe: Callable[[Row], None] = lambda _row: None
    ) -> Policy:
        """Return the pipeline's RCE policy if nothing differs, else one that is trained once."""
        workspace, name = self.workspace, first_tau(params)[0]
        pipelines = self.paths.trained(name, seed)
        same = seed == self.first_seed and all(
            getattr(params, part) == getattr(self.params, part) for part in (RCE, "reward", "rl")
        )
        if same and weights_of(pipelines).is_file():
            return workspace.load_policy(pipelines)
        key = (repr((params.rce, params.reward, params.rl)), seed)
        if key not in self._trained:
            self._trained[key] = train_rce(
                workspace.load_policy(self.paths.trained(SFT, self.first_seed)),
                self._environment(params),
                self._groups(params),
                self.dev,
                params.rce,
                params.rce.tau[name],
                Run(seed, observe, threads=params.threads),
                params.rl.constant_groups,
            )
        return deepcopy(self._trained[key].best())


def _report(report: Report, first: int, row: Row) -> None:
    """Report an epoch of a training whose epoch 0 has the number `first`.

    Raises:
        DivergedError: The epoch's loss is NaN or infinite.
    """
    if not math.isfinite(float(row.get("loss", 0.0))):
        raise DivergedError(f"loss {row['loss']} in epoch {row['epoch']}")
    report(first + int(row["epoch"]), row)


def _facts(example: Example) -> tuple[Any, ...]:
    """Return all fields of an example except the path of its image."""
    return tuple(value for name, value in sorted(asdict(example).items()) if name != "image")


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _policy(folder: Path) -> str:
    """Return the hash of a checkpoint's network and weights; "missing" if there is none."""
    if not weights_of(folder).is_file():
        return "missing"
    weights = read_bytes(weights_of(folder), "train it again (`dvc repro`)")
    return _digest(weights, repr(read_config(folder).architecture).encode())
