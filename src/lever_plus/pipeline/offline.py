"""Stage rce: RL data + SFT policy -> the off-line policies of one seed.

RCE with every tau schedule, and AGRO on the same candidates: one process, because starting up takes
as long as training.
"""

from collections.abc import Callable, Collection

from lever_plus.config.names import AGRO
from lever_plus.config.params import Params
from lever_plus.pipeline import paths
from lever_plus.pipeline.outputs import Outcome, write_metrics
from lever_plus.pipeline.workspace import Track, Workspace, describe_best, train
from lever_plus.training.agro import train_agro
from lever_plus.training.rce import train_rce
from lever_plus.training.trainer import Fitting, Run


def run(params: Params, seed: int, track: Track, methods: Collection[str] | None = None) -> Outcome:
    """Train them (all, or some) from the SFT policy, which is AGRO's reference too."""
    workspace = Workspace(params)
    made_from = (paths.SFT / paths.POLICY, paths.RECORDS)
    metrics = {
        method: train(workspace, method, paths.offline(method, seed), seed, track, fit, made_from)
        for method, fit in _fits(params, workspace).items()
        if methods is None or method in methods
    }
    write_metrics(paths.METRICS / "rce" / f"seed{seed}.json", metrics)
    text = "; ".join(f"{method}: {describe_best(best)}" for method, best in metrics.items())
    return Outcome(text, workspace.vlm.usage)


def _fits(params: Params, workspace: Workspace) -> dict[str, Callable[[Run], Fitting]]:
    """Return {method: what trains it}."""
    environment, groups, dev = workspace.environment, workspace.groups(), workspace.queries("dev")

    def rce(method: str) -> Callable[[Run], Fitting]:
        tau = params.rce.tau[method]
        return lambda run: train_rce(
            workspace.load_policy(paths.SFT), environment, groups, dev, params.rce, tau, run
        )

    def agro(run: Run) -> Fitting:
        policy = workspace.load_policy(paths.SFT)
        return train_agro(policy, environment, groups, dev, params.agro, run)

    return {**{method: rce(method) for method in params.rce.tau}, AGRO: agro}
