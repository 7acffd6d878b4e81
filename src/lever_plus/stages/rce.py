"""Stage rce: RL data + SFT policy -> the RCE-only policies of one seed, one a tau schedule."""

from lever_plus.params import Params
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.rce import train_rce
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, describe_best, train


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train with every tau schedule of params.yaml."""
    workspace = Workspace(params)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    groups = groups_from_records(records, workspace.pools, params.reward.shot_weights)
    metrics = {
        method: train(
            workspace,
            method,
            paths.rce(method, seed),
            track,
            lambda observe, tau=tau: train_rce(  # type: ignore[misc]
                workspace.load_policy(paths.SFT),
                workspace.environment,
                groups,
                workspace.queries("dev"),
                params.rce,
                tau,
                seed,
                observe,
            ),
        )
        for method, tau in params.rce.tau.items()
    }
    write_metrics(paths.METRICS / "rce" / f"seed{seed}.json", metrics)
    text = "; ".join(f"{method}: {describe_best(best)}" for method, best in metrics.items())
    return Outcome(text, workspace.vlm.usage)
