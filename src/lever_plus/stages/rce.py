"""Stage rce: RL data + SFT policy -> the off-line policies of one seed.

RCE with every tau schedule, and AGRO on the same candidates: one process, because starting up takes
as long as training.
"""

from collections.abc import Callable

from lever_plus.params import Params
from lever_plus.rl.agro import train_agro
from lever_plus.rl.fitting import Fitting, Observe
from lever_plus.rl.groups import groups_from_records
from lever_plus.rl.rce import train_rce
from lever_plus.rl.records import read_rl_data
from lever_plus.stages import paths
from lever_plus.stages.outputs import Outcome, write_metrics
from lever_plus.stages.workspace import Track, Workspace, describe_best, train


def run(params: Params, seed: int, track: Track) -> Outcome:
    """Train all of them from the SFT policy, which is AGRO's reference too."""
    workspace = Workspace(params)
    metrics = {
        method: train(workspace, method, paths.offline(method, seed), track, fit)
        for method, fit in _fits(params, workspace, seed).items()
    }
    write_metrics(paths.METRICS / "rce" / f"seed{seed}.json", metrics)
    text = "; ".join(f"{method}: {describe_best(best)}" for method, best in metrics.items())
    return Outcome(text, workspace.vlm.usage)


def _fits(
    params: Params, workspace: Workspace, seed: int
) -> dict[str, Callable[[Observe], Fitting]]:
    """Return {method: what trains it}."""
    _, records = read_rl_data(paths.RL_DATA, workspace.pools)
    groups = groups_from_records(records, workspace.pools, params.reward.shot_weights)
    environment, dev = workspace.environment, workspace.queries("dev")

    def rce(method: str) -> Callable[[Observe], Fitting]:
        return lambda observe: train_rce(
            workspace.load_policy(paths.SFT),
            environment,
            groups,
            dev,
            params.rce,
            params.rce.tau[method],
            seed,
            observe,
        )

    def agro(observe: Observe) -> Fitting:
        policy = workspace.load_policy(paths.SFT)
        return train_agro(policy, environment, groups, dev, params.agro, seed, observe)

    return {**{method: rce(method) for method in params.rce.tau}, "agro": agro}
