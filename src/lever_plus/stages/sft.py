"""Stage sft: InfoScore sequences -> the first policy."""

import json

import torch

from lever_plus.errors import UserError
from lever_plus.params import Params
from lever_plus.policy.kinds import build_selector, configure
from lever_plus.rl.infoscore import ScoredSequence
from lever_plus.rl.sft import train_sft
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, describe_best, train


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train the selector from scratch; its epoch is chosen by realised reward on dev."""
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
        "sft",
        paths.SFT,
        seed,
        track,
        lambda run: train_sft(
            build_selector(config),
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
