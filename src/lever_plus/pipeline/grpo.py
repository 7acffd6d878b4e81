"""Stage grpo: offline policy and VLM -> the on-policy policies of one seed.

These are the policy of GRPO and, trained further from it, a policy that decides when to stop.
"""

from collections.abc import Collection

from lever_plus.config.base import Count
from lever_plus.config.grpo import GrpoParams
from lever_plus.config.names import GRPO, GRPO_STOP
from lever_plus.config.offline import RlParams
from lever_plus.config.policy import PointerParams
from lever_plus.config.stop import StopParams
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.training import Fit, Track, Training, TrainingSettings, train_all
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.grpo import train_grpo
from lever_plus.training.loop import Trained
from lever_plus.training.stop import train_stop
from lever_plus.training.trainer import Run
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """The values of params.yaml that the stage reads."""

    threads: Count
    pointer: PointerParams
    grpo: GrpoParams
    stop: StopParams | None
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

    GRPO starts from an offline policy of the same seed, and `grpo-stop` from GRPO's policy; the
    KL of each training is measured against the policy that it starts from.
    """
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    trainings = [
        (_training(settings, paths, method, seed), fit)
        for method, fit in _fits(settings, workspace, seed).items()
        if methods is None or method in methods or (method == GRPO and GRPO_STOP in methods)
    ]
    return train_all(workspace, track, trainings)


def _training(settings: Settings, paths: Paths, method: str, seed: int) -> Training:
    start = paths.trained(settings.grpo.start if method == GRPO else GRPO, seed)
    return Training(
        stage=GRPO,
        method=method,
        seed=seed,
        folder=paths.trained(method, seed),
        settings=settings,
        made_from=(weights_of(start), paths.records(seed)),
        threads=settings.threads,
    )


def _fits(settings: Settings, workspace: Workspace, seed: int) -> dict[str, Fit]:
    """Return {method: function that trains it}, each after the method that it starts from."""
    environment = workspace.environment(settings.pointer.shots, settings.reward)
    paths, dev = workspace.paths, workspace.queries("dev")
    groups = workspace.groups(paths.rl_data(seed), settings.reward, settings.rl)
    constant = settings.rl.constant_groups

    def grpo(run: Run) -> Trained:
        policy = workspace.load_policy(paths.trained(settings.grpo.start, seed))
        return train_grpo(policy, environment, groups, dev, settings.grpo, run, constant)

    def stop(run: Run) -> Trained:
        if settings.stop is None:
            raise ValueError("params.yaml has no section stop")
        policy, queries = workspace.load_policy(paths.trained(GRPO, seed)), groups.queries
        return train_stop(
            policy, environment, queries, dev, settings.stop, settings.grpo, settings.pointer, run
        )

    return {GRPO: grpo} if settings.stop is None else {GRPO: grpo, GRPO_STOP: stop}
