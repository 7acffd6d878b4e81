"""`lever-plus bench`: speed and memory, measured on this machine."""

import json
from typing import Annotated, Any

import typer

from lever_plus.cli.tools import check_tables
from lever_plus.errors import UserError

bench_app = typer.Typer(help="Speed and memory, measured on this machine.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@bench_app.command("reader")
def bench_reader(json_: Json = False) -> None:
    """Read files as large as VQAv2's training split."""
    from lever_plus.bench.reader import run

    _print(run(), json_=json_)


@bench_app.command("scoring")
def bench_scoring(
    json_: Json = False,
    ablate: Annotated[bool, typer.Option(help="Turn the engine's parts off one by one.")] = False,
    size: Annotated[
        str | None, typer.Option(help="Instead: a made VLM of a real model's size, such as 135m.")
    ] = None,
) -> None:
    """Score the RL-data and InfoScore workloads: naive loop, plain batches, engine, full store."""
    from lever_plus.bench import scoring, sized
    from lever_plus.config.file import load_params

    if size is not None and ablate:
        raise UserError("--ablate is for the VLM of params.yaml: leave it or --size out.")
    params = load_params()
    figures = scoring.run(params, ablate=ablate) if size is None else sized.run(params, size)
    _print(figures, json_=json_)


@bench_app.command("training")
def bench_training(json_: Json = False) -> None:
    """Train one epoch of RCE and of GRPO: full batches, and one query a step."""
    from lever_plus.bench.training import run
    from lever_plus.config.file import load_params

    _print(run(load_params()), json_=json_)


@bench_app.command("growth")
def bench_growth(
    json_: Json = False,
    records: Annotated[int, typer.Option(min=1, help="Queries of the RL data.")] = 20_000,
    questions: Annotated[int, typer.Option(min=2, help="Test questions.")] = 10_000,
) -> None:
    """Read RL data, resample, and sum up the scores of many questions: seconds and memory."""
    check_tables("lever-plus bench growth")
    from lever_plus.bench.growth import run

    _print(run(records, questions), json_=json_)


@bench_app.command("selection")
def bench_selection(json_: Json = False) -> None:
    """Choose demonstrations for one question after the other, on one core: milliseconds."""
    from lever_plus.bench.selection import run
    from lever_plus.config.file import load_params

    _print(run(load_params()), json_=json_)


@bench_app.command("serving")
def bench_serving(json_: Json = False) -> None:
    """Ask an instant server through `lever-plus serve`: milliseconds added, requests lost."""
    from lever_plus.bench.serving import run
    from lever_plus.config.file import load_params

    _print(run(load_params()), json_=json_)


def _print(measured: dict[str, Any], *, json_: bool) -> None:
    if json_:
        typer.echo(json.dumps(measured))
        return
    for key, value in measured.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, figure in value.items():
                typer.echo(f"  {name:<30} {figure}")
        else:
            typer.echo(f"{key:<32} {value}")
