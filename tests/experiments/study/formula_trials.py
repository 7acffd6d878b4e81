"""Trials by formula: what a worker does can be tested without training anything."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lever_plus.config.file import load_params
from lever_plus.config.params import Params
from lever_plus.experiments.study.objective import Accuracies, DivergedError, Measured
from lever_plus.experiments.study.settings import Space, StudySettings, read_settings
from lever_plus.training.trainer import Row
from tiny_world import ROOT

BEST_RATE = 1e-3


class FormulaTrials:
    """The nearer log10 of the learning rate is to -3, the better; rates above 4e-3 diverge."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Take some time for every epoch."""
        self.seconds = seconds

    made_of: Mapping[str, Any] = {"objective": "formula"}
    dev_images = np.arange(20)

    def sources(self, seeds: Sequence[int]) -> dict[str, Any]:
        return {**self.made_of, "seeds": list(seeds)}

    def baseline(self, seed: int) -> Accuracies:
        return np.full((20, 4), 0.5 + seed / 1000)

    def measure(
        self, params: Params, epochs: int, seed: int, report: Callable[[int, Row], None]
    ) -> Measured:
        rate = params.grpo.learning_rate
        gain = 0.0 if epochs == 0 else 0.1 - 0.1 * abs(math.log10(rate) - math.log10(BEST_RATE))
        for epoch in range(epochs + 1 if epochs else 0):
            time.sleep(self.seconds)
            if rate > 4e-3:
                raise DivergedError("loss nan")
            now = float(self.baseline(seed).mean()) + gain * epoch / max(1, epochs)
            report(epoch, {"epoch": epoch, "dev_accuracy": now})
        noise = np.random.default_rng(seed).normal(0, 0.05, 20)
        kl = 10 * params.grpo.kl_beta
        return Measured(gain + noise - noise.mean(), [0.5 + gain] * 4, kl, 1.0)


def project_params() -> Params:
    """Return the project's params.yaml."""
    return load_params(ROOT / "params.yaml")


def settings(storage: str, trials: int = 12) -> StudySettings:
    """Return the project's settings with another storage and few trials."""
    found = read_settings(ROOT / "search" / "params.yaml")
    space: Space = found.space
    update = {"storage": storage, "trials": trials, "startup_trials": 4, "kl_budget": 0.5}
    return found.model_copy(update={**update, "space": space})
