"""Stage grpo: off-line policy + VLM -> the GRPO policy of one seed."""

from lever_plus.config.base import Count
from lever_plus.config.grpo import GrpoParams
from lever_plus.config.names import GRPO
from lever_plus.config.offline import RlParams
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.training import Track, Training, TrainingSettings, describe_best, train
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.grpo import train_grpo
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """What the stage reads of params.yaml."""

    threads: Count
    grpo: GrpoParams
    rl: RlParams


def run(
    settings: Settings, paths: Paths, seed: int, track: Track, vlm: StoredVlm | None = None
) -> Outcome:
    """Train from an off-line policy of the same seed; its start is the reference of the KL."""
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    start = paths.trained(settings.grpo.start, seed)
    training = Training(
        stage=GRPO,
        method=GRPO,
        seed=seed,
        folder=paths.trained(GRPO, seed),
        settings=settings,
        made_from=(weights_of(start), paths.records(seed)),
        threads=settings.threads,
    )
    environment = workspace.environment(settings.pointer.shots, settings.reward)
    groups = workspace.groups(paths.rl_data(seed), settings.reward, settings.rl)
    metrics = train(
        workspace,
        training,
        track,
        lambda run: train_grpo(
            workspace.load_policy(start),
            environment,
            groups,
            workspace.queries("dev"),
            settings.grpo,
            run,
            settings.rl.constant_groups,
        ),
    )
    write_metrics(paths.metrics / GRPO / f"seed{seed}.json", {GRPO: metrics})
    return Outcome(describe_best(metrics), workspace.vlm.usage)
