"""The stages of the pipeline as commands: each reads params.yaml, runs, and prints what it did."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lever_plus.cli.panels import MORE, RESULTS, STAGES
from lever_plus.cli.tools import Seed, check_tables, training_seed
from lever_plus.cli.track import pipeline_runs, synchronise, warn_of_mlflow
from lever_plus.config.names import GRPO, RCE, SFT
from lever_plus.errors import UserError
from lever_plus.files.reading import read_text
from lever_plus.files.writing import write_text
from lever_plus.tracking.lineage import PACKAGE, module_of

stages = typer.Typer()
PIPELINES: Final = {
    Path("dvc.yaml"): "pipeline",
    Path("ablations") / "dvc.yaml": "experiments.ablation",
    Path("recipes") / "house_words" / "dvc.yaml": "house_words.recipe",
}
"""{file of stages: the package that has their modules}."""


def _stage(name: str) -> Any:
    return import_module(f"{PACKAGE}.{module_of('pipeline', name)}")


def params_read(stage: str) -> list[str]:
    """Return the keys of params.yaml that a stage's results depend on."""
    from lever_plus.config.settings import keys_read

    return keys_read(_stage(stage).Settings)


def _run(stage: str, **given: int) -> None:
    """Run one stage with the settings of params.yaml, and print its summary.

    Args:
        stage: Name of the stage.
        given: A training seed, if the stage runs once for each.
    """
    from lever_plus.config.file import load_params
    from lever_plus.config.settings import settings_of
    from lever_plus.pipeline.outputs import write_metrics
    from lever_plus.pipeline.paths import Paths

    params, paths = load_params(), Paths()
    check_tables(f"lever-plus {stage}")
    module = _stage(stage)
    text, usage = module.run(settings_of(module.Settings, params), paths, **given)
    typer.echo(f"{stage}: {text}")
    if usage is not None:
        typer.echo(f"{stage}: {usage.describe()}")
        part = "".join(f"/{name}{value}" for name, value in given.items())
        write_metrics(paths.usage / f"{stage}{part}.json", usage.figures())


def _train(stage: str, given: int | None) -> None:
    """Run a training stage for a seed; its history rows go to MLflow while it trains."""
    from lever_plus.config.file import load_params
    from lever_plus.config.settings import settings_of
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.runs import find_run
    from lever_plus.tracking.runs import live_run

    params, paths = load_params(), Paths()
    seed, runs = training_seed(params, given), pipeline_runs(params, paths)

    def track(method: str) -> Any:
        return live_run(params, find_run(runs, stage, seed, method))

    module = _stage(stage)
    settings = settings_of(module.Settings, params)
    text, usage = module.run(settings, paths, track=track, seed=seed)
    typer.echo(f"{stage}: {text}")
    typer.echo(f"{stage}: {usage.describe()}")


@stages.command(rich_help_panel=STAGES)
def prepare() -> None:
    """Read the examples of every split, or make the embedded data set, and check them."""
    _run("prepare")


@stages.command(rich_help_panel=STAGES)
def pool() -> None:
    """Draw the pool of every query."""
    _run("pool")


@stages.command("in_context", rich_help_panel=STAGES)
def in_context() -> None:
    """Measure how well the VLM learns from demonstrations, on the embedded data set."""
    _run("in_context")


@stages.command(rich_help_panel=STAGES)
def embed() -> None:
    """Compute CLIP features of every example."""
    _run("embed")


@stages.command("sft_data", rich_help_panel=STAGES)
def sft_data() -> None:
    """Search for the demonstration sequences with the best InfoScore, for the SFT queries."""
    _run("sft_data")


@stages.command(rich_help_panel=STAGES)
def sft(seed: Seed = None) -> None:
    """Train the SFT policies for one training seed: they imitate the InfoScore search."""
    _train(SFT, seed)


@stages.command("rl_data", rich_help_panel=STAGES)
def rl_data(seed: Seed = None) -> None:
    """Make the RL data for one training seed: its SFT policy's candidates, with their scores."""
    from lever_plus.config.file import load_params

    _run("rl_data", seed=training_seed(load_params(), seed))


@stages.command(rich_help_panel=STAGES)
def rce(seed: Seed = None) -> None:
    """Train the offline policies for one training seed: RCE (each rce.tau schedule) and AGRO."""
    _train(RCE, seed)


@stages.command(rich_help_panel=STAGES)
def grpo(seed: Seed = None) -> None:
    """Train the GRPO policies for one training seed: GRPO, and from it the policy that can stop."""
    _train(GRPO, seed)


@stages.command(rich_help_panel=STAGES)
def evaluate() -> None:
    """Score all policies and baselines on the test questions, and log the results to MLflow."""
    _run("evaluate")
    try:
        typer.echo(f"track: {synchronise(patient=False)}")
    except Exception as error:
        warn_of_mlflow(error, "run `lever-plus track sync` later")


@stages.command(rich_help_panel=STAGES)
def report() -> None:
    """Write tables, plots, model cards and the HTML report."""
    _run("report")


@stages.command(rich_help_panel=MORE)
def ablate(
    variant: Annotated[
        str | None, typer.Argument(help="Name of a variant in ablations/variants.yaml.")
    ] = None,
) -> None:
    """Train and evaluate a variant of the pipeline; without a name, print all results."""
    check_tables("lever-plus ablate")
    from lever_plus.config.file import load_params
    from lever_plus.experiments.ablation import transfer, variants
    from lever_plus.pipeline.paths import Paths

    paths = Paths()
    if variant is None:
        from lever_plus.experiments.ablation import table

        typer.echo(table.run(paths, load_params().evaluate.resamples).text)
        return
    if variant in variants.read_variants(paths.root).transfers:
        typer.echo(transfer.run(variant, paths).text)
        return
    from lever_plus.experiments.ablation.variant import run
    from lever_plus.pipeline.runs import variant_run
    from lever_plus.tracking.runs import live_run

    found = variants.find_variant(variant, paths.root)
    params = variants.params_of(found, paths.root)

    def tracks(name: str, moved: Paths, seed: int) -> Any:
        def track(method: str) -> Any:
            return live_run(
                params, variant_run(moved, name, method, seed, moved.trained(method, seed))
            )

        return track

    typer.echo(run(variant, paths, tracks).text)


@stages.command(rich_help_panel=RESULTS)
def results() -> None:
    """Print the results tables, and where to find more."""
    from rich.console import Console

    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.report import read_stop, read_summary, read_timing
    from lever_plus.report.tables import print_tables

    paths = Paths()
    print_tables(read_summary(paths), Console(), read_timing(paths), read_stop(paths))
    typer.echo(f"\nReport:  {paths.report / 'index.html'} (open it in a browser)")
    typer.echo("MLflow:  make ui")
    typer.echo("DVC:     .venv/bin/dvc metrics show, .venv/bin/dvc plots show")


@stages.command(rich_help_panel=MORE)
def deps(
    write: Annotated[bool, typer.Option(help="Correct the lists in dvc.yaml.")] = False,
) -> None:
    """Check that dvc.yaml lists all code and params that each stage depends on."""
    from lever_plus.tracking.lineage import with_code_deps

    for path, package in PIPELINES.items():
        before = read_text(path, "run this in the project's root folder")
        # A variant may change any parameter, so dvc.yaml of the ablations names the whole file.
        keys = params_read if package == "pipeline" else None
        after = with_code_deps(before, Path.cwd(), package, keys)
        if write:
            write_text(path, after)
        elif before != after:
            raise UserError(f"{path} does not list all that its stages read: run `make deps`.")
        typer.echo(f"{path} lists all that its stages read")
