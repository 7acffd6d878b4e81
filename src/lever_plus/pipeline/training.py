"""The trainings of a stage: tracked, resumed after a kill, and saved as checkpoints."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from lever_plus.config.base import Section
from lever_plus.config.reward import RewardParams
from lever_plus.config.scoring import ScoringParams
from lever_plus.config.settings import From
from lever_plus.config.vlm import VlmParams
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import HISTORY
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.checkpoint import CheckpointConfig, EncoderFacts, save_checkpoint
from lever_plus.policy.files import POLICY
from lever_plus.policy.network import Policy
from lever_plus.tracking.history import History
from lever_plus.training.loop import Trained
from lever_plus.training.trainer import Observe, Run

PACKAGE = Path(__file__).parents[1]
Fit = Callable[[Run], Trained]
"""Trains one method."""
Track = Callable[[str], AbstractContextManager[Observe]]
"""Opens the tracked run of a method; the run gets every history row while the method trains."""


class TrainingSettings(Section):
    """The values of params.yaml that every training stage reads."""

    reward: RewardParams
    vlm: VlmParams
    scoring: Annotated[ScoringParams, From("scoring", free=True)]
    encoder: Annotated[str, From("embed.path", free=True)]
    encoder_revision: Annotated[str | None, From("embed.revision", free=True)]


@dataclass(frozen=True)
class Training:
    """One training: what it trains, from what, and where the results go.

    Attributes:
        stage: The stage that it belongs to.
        method: The method that it trains.
        seed: Training seed of the whole chain: initial weights, order of batches, dropout,
            sampling.
        folder: Where the history and the checkpoint go.
        settings: Settings of the stage.
        made_from: Files that the training depends on, besides pools, features and settings.
        threads: Number of parts of a batch that are computed in parallel.
    """

    stage: str
    method: str
    seed: int
    folder: Path
    settings: TrainingSettings
    made_from: Sequence[Path]
    threads: int = 1


def train_all(
    workspace: Workspace, track: Track, trainings: Sequence[tuple[Training, Fit]]
) -> Outcome:
    """Train methods of one stage and seed one after the other, and write their metrics file.

    Args:
        workspace: The outputs of earlier stages.
        track: Opens the tracked run of each method.
        trainings: The trainings, each with the function that trains; at least one.
    """
    metrics = {each.method: train(workspace, each, track, fit) for each, fit in trainings}
    first, _ = trainings[0]
    write_metrics(workspace.paths.metrics / first.stage / f"seed{first.seed}.json", metrics)
    text = "; ".join(f"{method}: {_describe(best)}" for method, best in metrics.items())
    return Outcome(text, workspace.vlm.usage)


def train(
    workspace: Workspace, training: Training, track: Track, fit: Fit
) -> dict[str, float | int]:
    """Train one method; its history and best policy go to its folder, its rows to a tracked run.

    If it is killed, the next call with the same settings, data and code resumes after the last
    complete epoch, and its results are the same to the byte.

    Args:
        workspace: The outputs of earlier stages.
        training: What is trained.
        track: Opens the tracked run.
        fit: The function that trains.

    Returns:
        What the stage's metrics file says about this method.
    """
    kept = _kept_state(workspace, training)
    # A policy beside the history means that the training has ended, so an old one must go.
    (training.folder / POLICY).unlink(missing_ok=True)
    with track(training.method) as observe:
        with History(training.folder / HISTORY, observe) as history:
            trained = fit(Run(training.seed, history.write, kept, training.threads))
        # Facts about this machine go to the tracked run only: the history is an output of DVC.
        observe({"step": trained.step, **workspace.vlm.usage.figures()})
        best = {"dev_reward": trained.best_reward, "best_epoch": trained.best_epoch}
        _save(workspace, training, trained.best(), best)
    kept.unlink(missing_ok=True)
    return {**best, "vlm_requests": trained.requests}


def _save(
    workspace: Workspace, training: Training, policy: Policy, best: Mapping[str, float | int]
) -> None:
    settings = training.settings
    encoder = EncoderFacts(
        sha256=workspace.space.encoder,
        path=settings.encoder,
        revision=settings.encoder_revision,
    )
    prompt = workspace.vlm.prompt
    facts: dict[str, Any] = {
        "stage": training.stage,
        "method": training.method,
        "seed": training.seed,
        "best_epoch": best["best_epoch"],
        "dev_reward": round(best["dev_reward"], 6),
    }
    config = CheckpointConfig(
        architecture=policy.config,
        feature_space=workspace.space.sha256,
        encoder=encoder,
        pool_sha256=workspace.pools.sha256,
        vlm=workspace.vlm.identity,
        prompt={"style": prompt.style, "instruction": prompt.instruction},
        training=facts,
    )
    save_checkpoint(training.folder, policy, workspace.space, config)


def _kept_state(workspace: Workspace, training: Training) -> Path:
    """Return the file of a training's state; remove states of other settings, data or code."""
    name = f"{training.method}-seed{training.seed}"
    digest = hashlib.sha256(training.settings.model_dump_json().encode())
    digest.update((workspace.pools.sha256 + workspace.space.sha256).encode())
    digest.update(repr(sorted(workspace.vlm.identity.items())).encode())
    code = sorted(PACKAGE.rglob("*.py"))
    for path in (*training.made_from, *code):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    states = workspace.paths.training
    kept = states / f"{name}-{digest.hexdigest()[:16]}.safetensors"
    # A kill during a write leaves a file whose name begins with a dot.
    for other in (*states.glob(f"{name}-*"), *states.glob(f".{name}-*")):
        if other != kept:
            other.unlink(missing_ok=True)
    return kept


def _describe(metrics: Mapping[str, float | int]) -> str:
    """Return what a training stage prints about one method."""
    return f"epoch {metrics['best_epoch']} is best, dev reward {metrics['dev_reward']:.3f}"
