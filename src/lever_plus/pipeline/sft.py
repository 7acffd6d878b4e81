"""Stage sft: InfoScore searches -> the first policies of one seed."""

from typing import Annotated

import torch

from lever_plus.config.base import Count
from lever_plus.config.names import SFT
from lever_plus.config.policy import PolicyParams
from lever_plus.config.settings import From
from lever_plus.config.sft import SftDataParams, SftParams
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.searches import check_searches, read_searches
from lever_plus.pipeline.training import Track, Training, TrainingSettings, describe_best, train
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.training.sft import train_sft
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """What the stage reads of params.yaml."""

    sft: SftParams
    policy: PolicyParams
    # What the searches were made with: they are checked by it, and DVC knows them as a file.
    sft_data: Annotated[SftDataParams, From("sft_data", free=True)]
    sft_queries: Annotated[Count, From("data.sft_queries", free=True)]


def run(
    settings: Settings, paths: Paths, seed: int, track: Track, vlm: StoredVlm | None = None
) -> Outcome:
    """Train the policy from scratch; its epoch is chosen by realised reward on dev."""
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    torch.manual_seed(seed)
    config = configure(
        settings.policy,
        query_size=workspace.embeddings.query_size,
        candidate_size=workspace.embeddings.candidate_size,
        shots=settings.pointer.shots,
        dropout=settings.sft.dropout,
    )
    training = Training(
        stage=SFT,
        method=SFT,
        seed=seed,
        folder=paths.trained(SFT, seed),
        settings=settings,
        made_from=(paths.searches,),
    )
    searches = read_searches(paths.searches)
    check_searches(
        paths.searches,
        searches,
        workspace.queries("train", settings.sft_queries),
        workspace.pools,
        settings.sft_data.beam,
        settings.sft_data.shots,
    )
    environment = workspace.environment(settings.pointer.shots, settings.reward)
    metrics = train(
        workspace,
        training,
        track,
        lambda run: train_sft(
            build_policy(config),
            environment,
            searches,
            workspace.queries("dev"),
            settings.sft,
            run,
        ),
    )
    write_metrics(paths.metrics / SFT / f"seed{seed}.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)
