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
    """Time reading files as large as VQAv2's training split."""
    from lever_plus.bench.reader import run

    _print(run(), json_=json_)


@bench_app.command("scoring")
def bench_scoring(
    json_: Json = False,
    ablate: Annotated[bool, typer.Option(help="Turn the engine's parts off one by one.")] = False,
    size: Annotated[
        str | None,
        typer.Option(help="Use a random VLM of a real model's size instead, such as 135m."),
    ] = None,
) -> None:
    """Time scoring RL data and InfoScore: naive loop, plain batches, engine, full store."""
    from lever_plus.bench import scoring, sized
    from lever_plus.config.file import load_params

    if size is not None and ablate:
        raise UserError(
            "--ablate works only with the VLM of params.yaml: leave out --ablate or --size."
        )
    params = load_params()
    figures = scoring.run(params, ablate=ablate) if size is None else sized.run(params, size)
    _print(figures, json_=json_)


@bench_app.command("training")
def bench_training(json_: Json = False) -> None:
    """Time one epoch of RCE and of GRPO: batches of whole groups, and one query per step."""
    from lever_plus.bench.training import run
    from lever_plus.config.file import load_params

    _print(run(load_params()), json_=json_)


@bench_app.command("growth")
def bench_growth(
    json_: Json = False,
    records: Annotated[int, typer.Option(min=1, help="Number of queries in the RL data.")] = 20_000,
    questions: Annotated[int, typer.Option(min=2, help="Number of test questions.")] = 10_000,
) -> None:
    """Measure time and memory of reading RL data, the bootstrap, and results of many questions."""
    check_tables("lever-plus bench growth")
    from lever_plus.bench.growth import run

    _print(run(records, questions), json_=json_)


@bench_app.command("selection")
def bench_selection(json_: Json = False) -> None:
    """Time how long it takes to choose demonstrations for one question, on one core."""
    from lever_plus.bench.selection import run
    from lever_plus.config.file import load_params

    _print(run(load_params()), json_=json_)


@bench_app.command("serving")
def bench_serving(json_: Json = False) -> None:
    """Time how much `lever-plus serve` adds to a reply, and count the requests that it loses."""
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
