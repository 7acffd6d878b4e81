"""Stage rce: RL data and SFT policy -> the offline policies of one seed.

These are RCE with every tau schedule, and AGRO on the same candidates. One process trains them all,
because starting a process takes as long as a training.
"""

from collections.abc import Collection
from typing import Annotated

from lever_plus.config.base import Count
from lever_plus.config.names import AGRO, RCE, SFT
from lever_plus.config.offline import AgroParams, RceParams, RlParams
from lever_plus.config.settings import From
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.training import Fit, Track, Training, TrainingSettings, train_all
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.agro import train_agro
from lever_plus.training.loop import Trained
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Run
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """The values of params.yaml that the stage reads."""

    threads: Count
    shots: Annotated[int, From("pointer.shots")]
    rce: RceParams
    agro: AgroParams
    rl: RlParams


def run(
    settings: Settings,
    paths: Paths,
    seed: int,
    track: Track,
    vlm: StoredVlm | None = None,
    methods: Collection[str] | None = None,
) -> Outcome:
    """Train the policies of one seed, all of them or those that `methods` names.

    Each starts from the seed's SFT policy, which is also AGRO's reference.
    """
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    trainings = [
        (_training(settings, paths, method, seed), fit)
        for method, fit in _fits(settings, workspace, seed).items()
        if methods is None or method in methods
    ]
    return train_all(workspace, track, trainings)


def _training(settings: Settings, paths: Paths, method: str, seed: int) -> Training:
    return Training(
        stage=RCE,
        method=method,
        seed=seed,
        folder=paths.trained(method, seed),
        settings=settings,
        made_from=(weights_of(paths.trained(SFT, seed)), paths.records(seed)),
        threads=settings.threads,
    )


def _fits(settings: Settings, workspace: Workspace, seed: int) -> dict[str, Fit]:
    """Return {method: function that trains it}."""
    environment = workspace.environment(settings.shots, settings.reward)
    paths, dev = workspace.paths, workspace.queries("dev")
    groups = workspace.groups(paths.rl_data(seed), settings.reward, settings.rl)
    start, constant = paths.trained(SFT, seed), settings.rl.constant_groups

    def rce(method: str) -> Fit:
        tau = settings.rce.tau[method]
        return lambda run: train_rce(
            workspace.load_policy(start), environment, groups, dev, settings.rce, tau, run, constant
        )

    def agro(run: Run) -> Trained:
        policy = workspace.load_policy(start)
        return train_agro(policy, environment, groups, dev, settings.agro, run, constant)

    return {**{method: rce(method) for method in settings.rce.tau}, AGRO: agro}
