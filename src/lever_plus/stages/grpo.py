"""Stage grpo: RCE policy + VLM -> the GRPO policy of one seed."""

from lever_plus.params import Params
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.grpo import train_grpo
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, describe_best, train


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train from the RCE policy of the same seed; its start is the reference of the KL."""
    workspace = Workspace(params)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    metrics = train(
        workspace,
        "grpo",
        paths.grpo(seed),
        track,
        lambda observe: train_grpo(
            workspace.load_policy(paths.offline("rce", seed)),
            workspace.environment,
            groups_from_records(records, workspace.pools, params.reward.shot_weights),
            workspace.queries("dev"),
            params.grpo,
            seed,
            observe,
        ),
    )
    write_metrics(paths.METRICS / "grpo" / f"seed{seed}.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)
