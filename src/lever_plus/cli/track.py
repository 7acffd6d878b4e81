"""`lever-plus track`: makes MLflow runs from files, and serves the MLflow UI."""

import os
import socket
import sys
from typing import Annotated, Any, Final

import typer

from lever_plus.config.names import GRPO, RCE
from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets

CALL_S: Final = 8.0
BUDGET_S: Final = 120.0
"""Seconds that a stage waits for MLflow: for one call, and for all calls together."""
track_app = typer.Typer(help="MLflow: its runs and its UI.", no_args_is_help=True)


def pipeline_runs(params: Any, paths: Any) -> list[Any]:
    """Return the training runs of the pipeline that params.yaml names."""
    from lever_plus.evaluation.methods import methods_of
    from lever_plus.pipeline.runs import training_runs

    methods = methods_of(params.rce.tau, params.sft.targets, stops=params.stop is not None)
    return training_runs(paths, params.training_seeds, methods)


def synchronise(*, patient: bool = True) -> str:
    """Log everything that is on disk to MLflow; return a sentence that says what was done.

    Args:
        patient: Whether to wait for a slow store; stages do not.
    """
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.registered import registered
    from lever_plus.tracking.runs import sync
    from lever_plus.tracking.store import Store

    params, paths = load_params(), Paths()
    trained = pipeline_runs(params, paths)
    runs, selectors = [*trained, *_variant_runs(paths)], registered(params, paths, trained)
    store = Store() if patient else Store(seconds=CALL_S, budget=BUDGET_S)
    done = sync(params, runs, paths.summary, paths.usage, paths.ablations, store, selectors)
    return (
        f"{done.made} runs created, {done.evaluated} got their evaluation, {done.registered} "
        f"selectors registered; store {store.place}"
    )


def warn_of_mlflow(error: Exception, then: str) -> None:
    """Say on stderr why MLflow failed, and what follows from it; what was computed is on disk."""
    typer.echo(f"MLflow: {without_secrets(str(error)).rstrip('.')}; {then}.", err=True)


def _variant_runs(paths: Any) -> list[Any]:
    """Return the runs of all ablations, finished or not."""
    from lever_plus.experiments.ablation.variants import has_variants, read_variants
    from lever_plus.pipeline.runs import variant_run

    if not has_variants(paths.root):
        return []
    found = read_variants(paths.root)
    return [
        variant_run(paths, name, method, seed)
        for name, variant in found.variants.items()
        for method in variant.trained
        for seed in found.seeds
    ]


@track_app.command("sync")
def track_sync() -> None:
    """Make the runs and models that MLflow lacks, from the files that DVC keeps."""
    typer.echo(f"track: {synchronise()}")


@track_app.command("ui")
def track_ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow UI; only this machine can open it."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.runs import find_run
    from lever_plus.tracking.address import SERVERS, scheme, shown, tracking_uri
    from lever_plus.tracking.runs import pages

    uri = tracking_uri()
    # A store on a server has a UI of its own: then only its address is printed.
    has_server = scheme(uri) in SERVERS
    if not has_server:
        _check_port(port)
    synchronise()
    server = shown(uri).rstrip("/") if has_server else f"http://127.0.0.1:{port}"
    typer.echo(f"MLflow UI: {server}" + ("" if has_server else " (Ctrl-C ends it)"))
    params = load_params()
    runs = pipeline_runs(params, Paths())
    compared = [find_run(runs, stage, params.training_seeds[0]) for stage in (RCE, GRPO)]
    for label, address in pages(server, compared).items():
        typer.echo(f"  {label}:\n    {address}")
    sys.stdout.flush()
    if not has_server:
        # The server replaces this process, so that a signal to this command ends the server.
        command = [sys.executable, "-m", "mlflow", "ui", *ui_options(port)]
        os.execve(sys.executable, command, ui_environment(uri))


def ui_options(port: int) -> list[str]:
    """Return the options of MLflow's UI: only this machine can open it, under these host names.

    MLflow's default list of hosts has patterns such as `10.*`, which a domain name can match.
    """
    hosts = ",".join(f"{host}:{port}" for host in ("127.0.0.1", "localhost"))
    return ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", hosts]


def ui_environment(uri: str) -> dict[str, str]:
    """Return the environment of MLflow's UI, with the store's address: it may hold a password."""
    switches = {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false"}
    return {**os.environ, **switches, "MLFLOW_BACKEND_STORE_URI": uri}


def _check_port(port: int) -> None:
    """Refuse a port that is in use, before anything that takes time."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"--port {port} can't be used ({error.strerror}): choose another."
            ) from error
