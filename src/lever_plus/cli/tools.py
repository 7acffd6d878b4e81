"""Commands of `lever-plus` besides the stages: doctor, RL JSON, results, metric, answer store."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lever_plus.cli.panels import MORE, OWN, RESULTS
from lever_plus.errors import UserError, needs

tools = typer.Typer()
metric_app = typer.Typer(help="The metric, VQA accuracy.", no_args_is_help=True)
store_app = typer.Typer(help="The answer store.", no_args_is_help=True)
tools.add_typer(metric_app, name="metric", rich_help_panel=MORE)
tools.add_typer(store_app, name="store", rich_help_panel=MORE)
Seed = Annotated[
    int | None, typer.Option(help="Training seed. Default: the first one in params.yaml.")
]
StoreFile = Annotated[
    Path | None, typer.Option(help="Store file. Default: scoring.store in params.yaml.")
]


class IndexSpace(StrEnum):
    """What the pointers of a file hold: example ids, or positions in the query's pool."""

    GLOBAL = "global"
    POOL = "pool"


def check_tables(command: str) -> None:
    """Refuse to start if pyarrow is missing, which reads and writes the pipeline's tables."""
    with needs("pipeline", command):
        import pyarrow  # noqa: F401


def training_seed(params: Any, seed: int | None) -> int:
    """Return a training seed of params.yaml, the first if none is named.

    Raises:
        UserError: params.yaml does not have this seed.
    """
    from lever_plus.pipeline.runs import find_seed

    return find_seed(params.training_seeds, seed)


def _rl_data_of(seed: int | None) -> Path:
    """Return the folder from which the stage `rce` reads the RL data of a training seed."""
    from lever_plus.config.file import load_params
    from lever_plus.pipeline.paths import Paths

    return Paths().rl_data(training_seed(load_params(), seed))


@tools.command(rich_help_panel=OWN)
def doctor(
    params: Annotated[
        Path, typer.Option(help="params.yaml, or a preset to check merged into it.")
    ] = Path("params.yaml"),
) -> None:
    """Check that everything a run needs is there, and say how to get what is missing."""
    from lever_plus.cli.doctor import examine
    from lever_plus.config.file import load_params, load_with_preset

    is_preset = params != Path("params.yaml")
    items = examine(load_with_preset(Path("params.yaml"), params) if is_preset else load_params())
    width = max(len(item.name) for item in items)
    for item in items:
        typer.echo(f"{'ok     ' if item.found else 'MISSING'} {item.name:<{width}}  {item.note}")
    if not all(item.found for item in items):
        raise typer.Exit(1)


@tools.command(rich_help_panel=RESULTS)
def headroom(seed: Seed = None) -> None:
    """Say whether there is anything to learn from the RL data, before anything is trained."""
    from lever_plus.data.pools import read_pools
    from lever_plus.pipeline.paths import Paths
    from lever_plus.report.terminal import print_headroom
    from lever_plus.training.rl_data.headroom import measure
    from lever_plus.training.rl_data.records import read_rl_data

    _, records = read_rl_data(_rl_data_of(seed), read_pools(Paths().pools))
    print_headroom(measure(records))


@tools.command(rich_help_panel=RESULTS)
def power(
    delta: Annotated[
        float,
        typer.Option(min=0.01, max=100.0, help="True difference to detect, in accuracy points."),
    ] = 0.5,
) -> None:
    """Say how many trainings and questions it takes to detect a difference, with 80 % power."""
    from lever_plus.pipeline.paths import Paths
    from lever_plus.pipeline.report import read_summary
    from lever_plus.report.terminal import print_power

    print_power(read_summary(Paths()), delta)


@tools.command(rich_help_panel=RESULTS)
def show(
    question_id: Annotated[int, typer.Argument(help="Id of a test question, such as 3000005.")],
) -> None:
    """Print each method's demonstrations for a test question, and the VLM's answers."""
    check_tables("lever-plus show")
    from lever_plus.pipeline import report
    from lever_plus.pipeline.paths import Paths

    report.show(Paths(), question_id)


@tools.command("import-rl", rich_help_panel=MORE)
def import_rl(
    file: Annotated[Path, typer.Argument(help="RL JSON of the older system.")],
    pool: Annotated[Path, typer.Option(help="Pool file that the pointers belong to.")],
    index_space: Annotated[
        IndexSpace | None,
        typer.Option(
            help="What pointers hold, if the file does not say it: example ids (global) or "
            "positions in the pool (pool)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the RL data. Default: where the stage rce reads them."),
    ] = None,
    seed: Seed = None,
) -> None:
    """Import RL JSON of the older system as RL data."""
    from lever_plus.data.pools import read_pools
    from lever_plus.training.rl_data.legacy_json import read_exchange
    from lever_plus.training.rl_data.records import write_rl_data

    folder = out or _rl_data_of(seed)
    found = read_exchange(file, index_space.value if index_space else None, read_pools(pool))
    write_rl_data(folder, found.meta, found.records)
    candidates = sum(len(record.candidates) for record in found.records)
    typer.echo(
        f"variant {found.variant}: {len(found.records)} queries, {candidates} candidates in "
        f"{folder}; {found.skipped} candidates without an official score were left out"
    )


@tools.command("export-rl", rich_help_panel=MORE)
def export_rl(
    folder: Annotated[Path, typer.Argument(help="RL data, such as artifacts/rl_data/seed1.")],
    file: Annotated[Path, typer.Argument(help="JSON file that is written.")],
    pool: Annotated[Path, typer.Option(help="Pool file of the RL data.")],
    shot: Annotated[
        int | None,
        typer.Option(
            min=1, help="Cut pointers to this many picks, and write the scores at that shot."
        ),
    ] = None,
) -> None:
    """Export RL data as RL JSON of the older system."""
    from lever_plus.data.pools import read_pools
    from lever_plus.training.rl_data.legacy_export import write_exchange
    from lever_plus.training.rl_data.records import read_rl_data

    if file.resolve().parent == folder.resolve() or file.resolve() == pool.resolve():
        raise UserError(
            f"{file} is the pool file, or is in the folder of the RL data: name a file elsewhere."
        )
    _, records = read_rl_data(folder, read_pools(pool))
    count = write_exchange(file, records, shot)
    picks = "whole pointers" if shot is None else f"pointers cut to {shot}"
    typer.echo(f"{count} queries in {file}, {picks}: positions (pointer) and ids (pointer_global)")


@metric_app.command("check")
def metric_check(
    predictions: Annotated[
        Path | None, typer.Option(help="Results file in VQAv2 format that is scored.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Annotations file for --predictions.")
    ] = None,
) -> None:
    """Check the metric against recorded results of the official script; score a results file."""
    from lever_plus.metric.check import agreement, compare

    found = agreement()
    typer.echo(f"{found.agreeing} of {found.total} recorded results of the official script agree")
    for difference in found.differences:
        typer.echo(f"  {difference}", err=True)
    if (predictions is None) != (annotations is None):
        raise UserError("--predictions and --annotations must be given together.")
    if predictions and annotations:
        scored = compare(predictions, annotations)
        typer.echo(f"{predictions}: {scored.n} predictions, accuracy x 100")
        for convention, accuracy in scored.accuracy.items():
            typer.echo(f"  {convention:<10} {100 * accuracy:6.2f}")
        typer.echo(f"  (all human answers are the same in {scored.unanimous:.1%} of the questions)")
    if found.differences:
        raise typer.Exit(1)


def _open_store(file: Path | None) -> Any:
    """Open a store file, the one in params.yaml if none is named."""
    from lever_plus.config.file import load_params
    from lever_plus.vlm.store.answers import Store

    path = file or Path(load_params().scoring.store)
    if not path.is_file():
        raise UserError(f"{path} does not exist yet: the first stage that uses the VLM makes it.")
    return Store(path)


@store_app.command("stat")
def store_stat(file: StoreFile = None) -> None:
    """Print how many answers the store holds for each VLM."""
    store = _open_store(file)
    typer.echo(f"{store.path}: {store.path.stat().st_size / 2**20:,.1f} MB")
    for row in store.statistics():
        vlm = row.identity
        weights, *server = vlm["revision"].split("; ")
        typer.echo(
            f"  {vlm['model']} {'; '.join((weights[:12], *server))} {vlm['dtype']}, prompt "
            f"{vlm['prompt_hash'][:12]}, {vlm['generation']}: {row.answers:,} answers "
            f"({row.empty:,} empty), {row.log_likelihoods:,} log-likelihoods"
        )


@store_app.command("merge")
def store_merge(
    sources: Annotated[list[Path], typer.Argument(help="Store files to add from.")],
    file: StoreFile = None,
    keep_own: Annotated[
        bool, typer.Option("--keep-own", help="Keep this store's answers if others differ.")
    ] = False,
) -> None:
    """Copy everything from other store files into this one."""
    from lever_plus.config.file import load_params
    from lever_plus.vlm.store.answers import Store
    from lever_plus.vlm.store.merging import check_sources, merge

    into = file or Path(load_params().scoring.store)
    check_sources(sources, into)
    store = Store(into)
    for source in sources:
        typer.echo(f"{source}: {merge(store, source, keep_own=keep_own):,} new answers")


@store_app.command("prune")
def store_prune(
    keep: Annotated[
        str, typer.Option(help="First characters of the VLM revision to keep; see `stat`.")
    ],
    file: StoreFile = None,
) -> None:
    """Remove the answers of all VLMs but one, and free their space."""
    typer.echo(f"{_open_store(file).prune(keep):,} answers removed")
