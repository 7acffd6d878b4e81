"""Stage grpo: RCE policy + VLM -> the GRPO policy of one seed."""

from lever_plus.params import Params
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.grpo import train_grpo
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, best_epoch
from lever_plus.tracking.history import History


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train from the RCE policy of the same seed; its start is the reference of the KL."""
    workspace, folder = Workspace(params), paths.grpo(seed)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    with track("grpo") as observe, History(folder / paths.HISTORY, observe) as history:
        fitting = train_grpo(
            workspace.load_policy(paths.rce("rce", seed)),
            workspace.environment,
            groups_from_records(records, workspace.pools, params.reward.shot_weights),
            workspace.queries("dev"),
            params.grpo,
            seed,
            history.write,
        )
        observe({"step": fitting.step, **workspace.vlm.usage.figures()})
    workspace.save_policy(folder, fitting.best())
    write_metrics(paths.METRICS / "grpo" / f"seed{seed}.json", best_epoch(fitting))
    return Outcome(
        f"epoch {fitting.best_epoch} is best, dev reward {fitting.best_reward:.3f}",
        workspace.vlm.usage,
    )
