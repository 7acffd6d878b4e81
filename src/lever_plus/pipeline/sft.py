"""Stage sft: InfoScore searches -> the first policies of one seed.

RL starts from the policy of the method `sft`; other methods serve for comparison.
"""

from collections.abc import Collection
from typing import Annotated

import torch

from lever_plus.config.base import Count
from lever_plus.config.names import SFT
from lever_plus.config.policy import PolicyParams
from lever_plus.config.settings import From
from lever_plus.config.sft import SftDataParams, SftParams
from lever_plus.pipeline.outputs import Outcome
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.searches import check_searches, read_searches
from lever_plus.pipeline.training import Fit, Track, Training, TrainingSettings, train_all
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.policy.network import Policy
from lever_plus.training.loop import Trained
from lever_plus.training.sft import Searches, train_sft, train_sft_beams
from lever_plus.training.trainer import Run
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """The values of params.yaml that the stage reads."""

    shots: Annotated[int, From("pointer.shots")]
    sft: SftParams
    policy: PolicyParams
    sft_data: SftDataParams
    # Free: only the searches are checked against it, and DVC tracks those as a file.
    sft_queries: Annotated[Count, From("data.sft_queries", free=True)]


def run(
    settings: Settings,
    paths: Paths,
    seed: int,
    track: Track,
    vlm: StoredVlm | None = None,
    methods: Collection[str] | None = None,
) -> Outcome:
    """Train the policies of one seed from scratch, all of them or those that `methods` names.

    The best epoch of each is chosen by realised reward on dev.
    """
    workspace = Workspace(paths, settings.vlm, settings.scoring, vlm)
    trainings = [
        (_training(settings, paths, method, seed), fit)
        for method, fit in _fits(settings, workspace).items()
        if methods is None or method in methods
    ]
    return train_all(workspace, track, trainings)


def _training(settings: Settings, paths: Paths, method: str, seed: int) -> Training:
    return Training(
        stage=SFT,
        method=method,
        seed=seed,
        folder=paths.trained(method, seed),
        settings=settings,
        made_from=(paths.searches,),
    )


def _fits(settings: Settings, workspace: Workspace) -> dict[str, Fit]:
    """Return {method: function that trains it}."""
    environment = workspace.environment(settings.shots, settings.reward)
    searches, dev = _searches(settings, workspace), workspace.queries("dev")
    config = configure(
        settings.policy,
        query_size=workspace.embeddings.query_size,
        candidate_size=workspace.embeddings.candidate_size,
        shots=settings.shots,
        dropout=settings.sft.dropout,
    )

    def fresh(run: Run) -> Policy:
        torch.manual_seed(run.seed)
        return build_policy(config)

    def scores(run: Run) -> Trained:
        return train_sft(fresh(run), environment, searches, dev, settings.sft, run)

    def beams(run: Run) -> Trained:
        beam = settings.sft_data.beam
        return train_sft_beams(fresh(run), environment, searches, beam, dev, settings.sft, run)

    fits = {"scores": scores, "beams": beams}
    return {method: fits[target] for method, target in settings.sft.targets.items()}


def _searches(settings: Settings, workspace: Workspace) -> Searches:
    """Read the searches; raise UserError if they do not fit the settings."""
    path = workspace.paths.searches
    searches = read_searches(path)
    check_searches(
        path,
        searches,
        workspace.queries("train", settings.sft_queries),
        workspace.pools,
        settings.sft_data.beam,
        settings.sft_data.shots,
    )
    return searches
