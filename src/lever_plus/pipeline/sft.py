"""Stage sft: InfoScore sequences -> the first policy."""

import json
from pathlib import Path

import torch

from lever_plus.config.names import SFT
from lever_plus.config.policy import PolicyParams
from lever_plus.config.sft import SftParams
from lever_plus.errors import UserError
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.paths import Paths
from lever_plus.pipeline.training import Track, Training, TrainingSettings, describe_best, train
from lever_plus.pipeline.workspace import Workspace
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.selectors.infoscore import ScoredSequence
from lever_plus.training.sft import train_sft
from lever_plus.vlm.store.cached import StoredVlm


class Settings(TrainingSettings):
    """What the stage reads of params.yaml."""

    seed: int
    sft: SftParams
    policy: PolicyParams


def run(
    settings: Settings,
    paths: Paths,
    track: Track,
    vlm: StoredVlm | None = None,
    seed: int | None = None,
) -> Outcome:
    """Train the policy from scratch; its epoch is chosen by realised reward on dev.

    The seed is that of the settings, if none is given.
    """
    seed = settings.seed if seed is None else seed
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
        folder=paths.sft,
        settings=settings,
        made_from=(paths.sequences,),
    )
    environment = workspace.environment(settings.pointer.shots, settings.reward)
    metrics = train(
        workspace,
        training,
        track,
        lambda run: train_sft(
            build_policy(config),
            environment,
            read_sequences(paths.sequences),
            workspace.queries("dev"),
            settings.sft,
            run,
        ),
    )
    write_metrics(paths.metrics / "sft.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)


def read_sequences(path: Path) -> dict[int, list[ScoredSequence]]:
    """Read the InfoScore sequences; UserError names a damaged line."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro sft_data`.")
    sequences = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            beams = [ScoredSequence(tuple(b["pointer"]), b["info_score"]) for b in row["beams"]]
            sequences[int(row["query_id"])] = beams
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: damaged ({error}). Run `dvc repro sft_data`."
            ) from error
    return sequences
