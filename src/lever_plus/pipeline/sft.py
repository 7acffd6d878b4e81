"""Stage sft: InfoScore sequences -> the first policy."""

import json

import torch

from lever_plus.config.names import SFT
from lever_plus.config.params import Params
from lever_plus.errors import UserError
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.workspace import Track, Workspace, describe_best, train
from lever_plus.policy.kinds import build_policy, configure
from lever_plus.selectors.infoscore import ScoredSequence
from lever_plus.training.sft import train_sft


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train the policy from scratch; its epoch is chosen by realised reward on dev."""
    workspace = Workspace(params)
    torch.manual_seed(seed)
    config = configure(
        params.policy,
        query_size=workspace.embeddings.query_size,
        candidate_size=workspace.embeddings.candidate_size,
        shots=params.pointer.shots,
        dropout=params.sft.dropout,
    )
    metrics = train(
        workspace,
        SFT,
        paths.SFT,
        seed,
        track,
        lambda run: train_sft(
            build_policy(config),
            workspace.environment,
            read_sequences(),
            workspace.queries("dev"),
            params.sft,
            run,
        ),
        made_from=(paths.SEQUENCES,),
    )
    write_metrics(paths.METRICS / "sft.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)


def read_sequences() -> dict[int, list[ScoredSequence]]:
    """Read the InfoScore sequences; UserError names a damaged line."""
    if not paths.SEQUENCES.is_file():
        raise UserError(f"{paths.SEQUENCES} is missing: run `dvc repro sft_data`.")
    sequences = {}
    lines = paths.SEQUENCES.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            beams = [ScoredSequence(tuple(b["pointer"]), b["info_score"]) for b in row["beams"]]
            sequences[int(row["query_id"])] = beams
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f"{paths.SEQUENCES}, line {number}: damaged ({error}). Run `dvc repro sft_data`."
            ) from error
    return sequences
