"""`lever-plus track`: MLflow runs made from files, and the MLflow UI."""

import os
import sys
from typing import Any

import typer

from lever_plus.config.names import GRPO, RCE

track_app = typer.Typer(help="The MLflow side.", no_args_is_help=True)


def pipeline_runs(params: Any, paths: Any) -> list[Any]:
    """Return the training runs of the pipeline that params.yaml names."""
    from lever_plus.pipeline.runs import training_runs

    return training_runs(paths, params.seed, params.training_seeds, params.rce.tau)


def synchronise() -> str:
    """Project everything that is on disk into MLflow; return what was done."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths
    from lever_plus.tracking.runs import sync
    from lever_plus.tracking.store import tracking_uri

    params, paths = load_params(), Paths()
    runs = [*pipeline_runs(params, paths), *_variant_runs(paths)]
    made, evaluated = sync(params, runs, paths.summary, paths.usage, paths.ablations)
    return f"{made} runs made, {evaluated} got the evaluation; store {tracking_uri()}"


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
        for method in variant.methods
        for seed in found.seeds
    ]


@track_app.command("sync")
def track_sync() -> None:
    """Make the MLflow runs that are missing, from the files that DVC keeps."""
    typer.echo(f"track: {synchronise()}")


@track_app.command("ui")
def track_ui(port: int = 5000) -> None:
    """Serve the MLflow UI on loopback."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.runs import find_run
    from lever_plus.tracking.runs import pages
    from lever_plus.tracking.store import tracking_uri

    synchronise()
    server = f"http://127.0.0.1:{port}"
    typer.echo(f"MLflow UI: {server} (Ctrl-C ends it)")
    params = load_params()
    runs = pipeline_runs(params, Paths())
    compared = [find_run(runs, stage, params.training_seeds[0]) for stage in (RCE, GRPO)]
    for label, address in pages(server, compared).items():
        typer.echo(f"  {label}:\n    {address}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri()]
    sys.stdout.flush()
    # In this process's place: a signal that ends this command then ends the server.
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port)])
