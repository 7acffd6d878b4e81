"""`lever-plus STAGE`: reads params.yaml, calls one function, prints what it did."""

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from lever_plus.cli.study import study_app
from lever_plus.cli.tools import check_tables, tools
from lever_plus.config.names import GRPO, RCE, SFT
from lever_plus.errors import UserError
from lever_plus.tracking.lineage import PACKAGE, module_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

app = typer.Typer(
    help="Learn which in-context demonstrations a frozen vision-language model should see.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
params_app = typer.Typer(help="Check or change params.yaml.", no_args_is_help=True)
track_app = typer.Typer(help="The MLflow side.", no_args_is_help=True)
app.add_typer(params_app, name="params")
app.add_typer(tools)
app.add_typer(track_app, name="track")
app.add_typer(study_app, name="study")


PIPELINES = {Path("dvc.yaml"): "pipeline", Path("ablations") / "dvc.yaml": "experiments.ablation"}
"""Files of stages, and the room of each."""
Seed = Annotated[int, typer.Option(help="Training seed: order of batches and sampling.")]


def _stage(name: str) -> Any:
    return import_module(f"{PACKAGE}.{module_of('pipeline', name)}")


def _run(stage: str, **options: Any) -> None:
    """Run one stage with the settings of params.yaml and print its summary."""
    from lever_plus.config.file import load_params

    params = load_params()
    check_tables(f"lever-plus {stage}")
    text, usage = _stage(stage).run(params, **options)
    typer.echo(f"{stage}: {text}")
    if usage is not None:
        from lever_plus.pipeline import paths
        from lever_plus.pipeline.outputs import write_metrics

        typer.echo(f"{stage}: {usage.describe()}")
        write_metrics(paths.USAGE / f"{stage}.json", usage.figures())


def _train(stage: str, run_seed: int, **options: Any) -> None:
    """Run a training stage; the rows of each of its runs go to MLflow while it trains."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.runs import find_run
    from lever_plus.tracking.runs import live_run

    params = load_params()
    find_run(params, stage, run_seed)

    def track(method: str) -> Any:
        return live_run(params, find_run(params, stage, run_seed, method))

    text, usage = import_module(f"lever_plus.{module_of('pipeline', stage)}").run(
        params, track=track, **options
    )
    typer.echo(f"{stage}: {text}")
    typer.echo(f"{stage}: {usage.describe()}")


def _sync() -> str:
    """Project everything that is on disk into MLflow."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline import paths
    from lever_plus.pipeline.runs import training_runs
    from lever_plus.tracking.runs import sync
    from lever_plus.tracking.store import tracking_uri

    params = load_params()
    runs = [*training_runs(params), *_variant_runs()]
    ablations = paths.METRICS / "ablations.json"
    made, evaluated = sync(params, runs, paths.SUMMARY, paths.USAGE, ablations)
    return f"{made} runs made, {evaluated} got the evaluation; store {tracking_uri()}"


def _variant_runs() -> list[Any]:
    """Return the runs of all ablations, finished or not."""
    from lever_plus.experiments.ablation.variants import VARIANTS, read_variants
    from lever_plus.pipeline.runs import variant_run

    if not VARIANTS.is_file():
        return []
    found = read_variants()
    return [
        variant_run(name, method, seed)
        for name, variant in found.variants.items()
        for method in variant.methods
        for seed in found.seeds
    ]


@app.command()
def prepare() -> None:
    """Make or read the examples of every split, and check them."""
    _run("prepare")


@app.command()
def pool() -> None:
    """Draw the pool of every query."""
    _run("pool")


@app.command()
def pretrain() -> None:
    """Train the tiny CLIP and the tiny VLM of the embedded data set."""
    _run("pretrain")


@app.command()
def embed() -> None:
    """Compute CLIP features of every example."""
    _run("embed")


@app.command("sft_data")
def sft_data() -> None:
    """Search InfoScore sequences for the SFT queries."""
    _run("sft_data")


@app.command()
def sft() -> None:
    """Train the first policy by imitation."""
    from lever_plus.config.file import load_params

    seed = load_params().seed
    _train(SFT, seed, seed=seed)


@app.command("rl_data")
def rl_data() -> None:
    """Propose candidates and score them: the RL data."""
    _run("rl_data")


@app.command()
def rce(seed: Seed = 1) -> None:
    """Train the off-line policies of a seed: RCE with every schedule in rce.tau, and AGRO."""
    _train(RCE, seed, seed=seed)


@app.command()
def grpo(seed: Seed = 1) -> None:
    """Train the GRPO policy, from the RCE policy of the same seed."""
    _train(GRPO, seed, seed=seed)


@app.command()
def evaluate() -> None:
    """Score all policies and baselines on the test questions; log to their MLflow runs."""
    _run("evaluate")
    try:
        typer.echo(f"track: {_sync()}")
    except Exception as error:
        typer.echo(f"MLflow: {error}; run `lever-plus track sync` later.", err=True)


@app.command()
def report() -> None:
    """Write tables, plots and the HTML page."""
    _run("report")


@app.command()
def ablate(
    variant: Annotated[str | None, typer.Argument(help="Of ablations/variants.yaml.")] = None,
) -> None:
    """Train and evaluate a variant of the pipeline; without one, print what they all gave."""
    check_tables("lever-plus ablate")
    if variant is None:
        from lever_plus.experiments.ablation import table

        typer.echo(table.run().text)
        return
    from lever_plus.experiments.ablation.variant import run
    from lever_plus.experiments.ablation.variants import find_variant, params_of
    from lever_plus.pipeline import paths
    from lever_plus.pipeline.runs import variant_run
    from lever_plus.tracking.runs import live_run

    params = params_of(find_variant(variant), Path.cwd())

    def tracks(name: str, seed: int) -> Any:
        return lambda method: live_run(
            params, variant_run(name, method, seed, paths.trained(method, seed))
        )

    typer.echo(run(variant, tracks).text)


@app.command()
def results() -> None:
    """Print the results tables and where to look next."""
    from rich.console import Console

    from lever_plus.pipeline import paths
    from lever_plus.pipeline.report import read_summary
    from lever_plus.report.tables import print_tables

    print_tables(read_summary(), Console())
    typer.echo(f"\nReport:  {paths.REPORT / 'index.html'} (open it in a browser)")
    typer.echo("MLflow:  make ui")
    typer.echo("DVC:     .venv/bin/dvc metrics show, .venv/bin/dvc plots show")


@app.command()
def deps(write: Annotated[bool, typer.Option(help="Write them into dvc.yaml.")] = False) -> None:
    """Check that each stage's code dependencies in dvc.yaml are its import closure."""
    from lever_plus.tracking.lineage import with_code_deps

    for path, package in PIPELINES.items():
        before = path.read_text(encoding="utf-8")
        after = with_code_deps(before, Path.cwd(), package)
        if write:
            path.write_text(after, encoding="utf-8", newline="\n")
        elif before != after:
            raise UserError(f"{path} does not list what the stages import: run `make deps`.")
        typer.echo(f"{path} lists the import closure of every stage")


@track_app.command("sync")
def track_sync() -> None:
    """Make the MLflow runs that are missing, from the files that DVC keeps."""
    typer.echo(f"track: {_sync()}")


@track_app.command("ui")
def track_ui(port: int = 5000) -> None:
    """Serve the MLflow UI on loopback."""
    import sys

    from lever_plus.config.file import load_params
    from lever_plus.pipeline.runs import find_run
    from lever_plus.tracking.runs import pages
    from lever_plus.tracking.store import tracking_uri

    _sync()
    server = f"http://127.0.0.1:{port}"
    typer.echo(f"MLflow UI: {server} (Ctrl-C ends it)")
    params = load_params()
    compared = [find_run(params, stage, params.training_seeds[0]) for stage in (RCE, GRPO)]
    for label, address in pages(server, compared).items():
        typer.echo(f"  {label}:\n    {address}")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri()]
    sys.stdout.flush()
    # In this process's place: a signal that ends this command then ends the server.
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port)])


@params_app.command("check")
def params_check(path: Path = Path("params.yaml")) -> None:
    """Check params.yaml."""
    from lever_plus.config.file import load_params

    load_params(path)
    typer.echo(f"{path} is valid")


@params_app.command("overlay")
def params_overlay(preset: Path, path: Path = Path("params.yaml")) -> None:
    """Merge a preset into params.yaml, keeping its comments."""
    from lever_plus.config.file import overlay

    overlay(path, preset)
    typer.echo(f"{preset} merged into {path}")


def main() -> None:
    """Entry point: errors meant for people are printed without a traceback."""
    try:
        app()
    except UserError as error:
        typer.secho(f"lever-plus: {error}", err=True, fg=typer.colors.RED)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
