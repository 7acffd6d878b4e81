"""Proposals: the values of a trial depend only on its place in the study and on earlier results.

They do not depend on which process asks, or on how often a worker was killed.
"""

from hashlib import sha256
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from lever_plus.experiments.study.liveness import place_of
from lever_plus.experiments.study.settings import StudySettings


class Proposals(BaseSampler):
    """Optuna's TPE sampler, made again for every trial with a seed for this trial."""

    def __init__(self, settings: StudySettings) -> None:
        """Keep the seed, and the number of random trials at the start."""
        self._seed, self._random = settings.sampler_seed, settings.startup_trials

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the distributions of the values that are proposed together."""
        return self._of(study, trial, "space").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values together; Optuna prefers values that were queued."""
        return self._of(study, trial, "all").sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose one value; a trial that is repeated after a kill gets the same value again."""
        sampler = self._of(study, trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _of(self, study: Study, trial: FrozenTrial, part: str) -> TPESampler:
        place = place_of(trial.number, study.get_trials(deepcopy=False))
        digest = sha256(f"{self._seed} {place} {part}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        return TPESampler(seed=seed, n_startup_trials=self._random)
