"""Stage grpo: off-line policy + VLM -> the GRPO policy of one seed."""

from lever_plus.config.names import GRPO
from lever_plus.config.params import Params
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.workspace import Track, Workspace, describe_best, train
from lever_plus.training.grpo import train_grpo


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train from an off-line policy of the same seed; its start is the reference of the KL."""
    workspace = Workspace(params)
    start = paths.offline(params.grpo.start, seed)
    groups = workspace.groups()
    metrics = train(
        workspace,
        GRPO,
        paths.grpo(seed),
        seed,
        track,
        lambda run: train_grpo(
            workspace.load_policy(start),
            workspace.environment,
            groups,
            workspace.queries("dev"),
            params.grpo,
            run,
        ),
        made_from=(start / paths.POLICY, paths.RECORDS),
    )
    write_metrics(paths.METRICS / "grpo" / f"seed{seed}.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)
