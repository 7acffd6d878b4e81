"""Stage agro: RL data + SFT policy -> the AGRO policy of one seed."""

from lever_plus.params import Params
from lever_plus.rl.agro import train_agro
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, describe_best, train


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train off-line on all candidates; the SFT policy is the start and the reference."""
    workspace = Workspace(params)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    metrics = train(
        workspace,
        "agro",
        paths.agro(seed),
        track,
        lambda observe: train_agro(
            workspace.load_policy(paths.SFT),
            workspace.environment,
            groups_from_records(records, workspace.pools, params.reward.shot_weights),
            workspace.queries("dev"),
            params.agro,
            seed,
            observe,
        ),
    )
    write_metrics(paths.METRICS / "agro" / f"seed{seed}.json", metrics)
    return Outcome(describe_best(metrics), workspace.vlm.usage)
