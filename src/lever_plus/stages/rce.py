"""Stage rce: RL data + SFT policy -> the RCE-only policies of one seed, one a tau schedule."""

from lever_plus.params import Params
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.rce import train_rce
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, best_epoch
from lever_plus.tracking.history import History


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train with every tau schedule of params.yaml; the VLM's answers are shared by all."""
    workspace = Workspace(params)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    metrics = {}
    for method, tau in params.rce.tau.items():
        folder = paths.rce(method, seed)
        with track(method) as observe, History(folder / paths.HISTORY, observe) as history:
            fitting = train_rce(
                workspace.load_policy(paths.SFT),
                workspace.environment,
                groups_from_records(records, workspace.pools, params.reward.shot_weights),
                workspace.queries("dev"),
                params.rce,
                tau,
                seed,
                history.write,
            )
            observe({"step": fitting.step, **workspace.vlm.usage.figures()})
        workspace.save_policy(folder, fitting.best())
        metrics[method] = best_epoch(fitting)
    write_metrics(paths.METRICS / "rce" / f"seed{seed}.json", metrics)
    return Outcome(
        "; ".join(
            f"{method}: epoch {best['best_epoch']} is best, dev reward {best['dev_reward']:.3f}"
            for method, best in metrics.items()
        ),
        workspace.vlm.usage,
    )
