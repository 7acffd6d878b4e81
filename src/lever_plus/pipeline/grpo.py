"""Stage grpo: off-line policy + VLM -> the GRPO policy of one seed."""

from typing import Annotated

from lever_plus.config.base import Count, Section
from lever_plus.config.grpo import GrpoParams
from lever_plus.config.names import GRPO
from lever_plus.config.offline import RlParams
from lever_plus.config.policy import PointerParams
from lever_plus.config.reward import RewardParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths, weights_of
from lever_plus.pipeline.training import Track, Training, describe_best, train
from lever_plus.pipeline.workspace import Workspace
from lever_plus.training.grpo import train_grpo
from lever_plus.vlm.store.cached import StoredVlm


class Settings(Section):
    """What the stage reads of params.yaml."""

    threads: Count
    grpo: GrpoParams
    rl: RlParams
    pointer: PointerParams
    reward: RewardParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    encoder: Annotated[str | None, From("embed.path", free=True)]
    encoder_revision: Annotated[str | None, From("embed.revision", free=True)]


def run(
    settings: Settings, paths: Paths, seed: int, track: Track, vlm: StoredVlm | None = None
) -> Outcome:
    """Train from an off-line policy of the same seed; its start is the reference of the KL."""
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    start = paths.offline(settings.grpo.start, seed)
    training = Training(
        stage=GRPO,
        method=GRPO,
        seed=seed,
        folder=paths.grpo(seed),
        settings=settings,
        encoder=(settings.encoder or str(Paths().clip), settings.encoder_revision),
        made_from=(weights_of(start), paths.records),
        threads=settings.threads,
    )
    environment = workspace.environment(settings.pointer.shots, settings.reward)
    groups = workspace.groups(settings.reward, settings.rl)
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
        ),
    )
    write_metrics(paths.metrics / "grpo" / f"seed{seed}.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)
