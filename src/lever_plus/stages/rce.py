"""Stage rce: RL data + SFT policy -> the RCE-only policy of one tau schedule and seed."""

from lever_plus.errors import UserError
from lever_plus.params import Params
from lever_plus.rl.fitting import Observe
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.rce import train_rce
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.workspace import Workspace, write_metrics
from lever_plus.tracking.history import History


def run(params: Params, method: str, seed: int, observe: Observe) -> str:
    """Train with the tau schedule that params.yaml gives for `method`."""
    if method not in params.rce.tau:
        raise UserError(f"rce.tau has no schedule {method!r}: choose from {list(params.rce.tau)}.")
    workspace, folder = Workspace(params), paths.rce(method, seed)
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    with History(folder / paths.HISTORY, observe) as history:
        fitting = train_rce(
            workspace.load_policy(paths.SFT),
            workspace.environment,
            groups_from_records(records, workspace.pools),
            workspace.queries("dev"),
            params.rce,
            params.rce.tau[method],
            seed,
            history.write,
        )
    workspace.save_policy(folder, fitting.best())
    best = {"dev_reward": fitting.best_reward, "best_epoch": fitting.best_epoch}
    write_metrics(paths.METRICS / "rce" / f"{method}-seed{seed}.json", {**best})
    return f"{method}: epoch {fitting.best_epoch} is best, dev reward {fitting.best_reward:.3f}"
