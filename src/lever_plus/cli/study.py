"""`lever-plus study`: runs, shows and promotes the search around the RCE-only baseline."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lever_plus.cli.track import warn_of_mlflow
from lever_plus.errors import needs
from lever_plus.files.secrets import without_secrets

study_app = typer.Typer(
    help="The Optuna study: a search around the RCE-only baseline.", no_args_is_help=True
)


@study_app.command("run")
def study_run(
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Number of processes. Default: workers in search/params.yaml."
        ),
    ] = None,
    number: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run trials until the study has enough; several commands can work on it at once."""
    from lever_plus.config.file import load_params
    from lever_plus.experiments.study.settings import read_settings
    from lever_plus.pipeline.paths import Paths

    settings = read_settings(Paths().study_settings)
    count = settings.workers if workers is None else workers
    _check_installed()
    from lever_plus.experiments.study.space import check_space
    from lever_plus.experiments.study.storage import open_study
    from lever_plus.experiments.study.worker import run_worker

    params = load_params()
    if count > 1:
        # Checked here, so that what all workers would refuse is reported only once.
        check_space(params, settings.space)
        open_study(settings)
        _start_workers(count)
    else:
        finished = run_worker(params, settings)
        typer.echo(f"worker {number}: {finished} trials")
    if number == 0:
        study_show()


def _check_installed() -> None:
    """Refuse to start if a package that a study needs is missing."""
    with needs("study", "lever-plus study"):
        import matplotlib  # noqa: F401
        import optuna  # noqa: F401
        import psutil  # noqa: F401


def _start_workers(count: int) -> None:
    """Start worker processes, and wait until they end."""
    command = [sys.executable, "-m", "lever_plus.cli.main", "study", "run", "--workers", "1"]
    started = [subprocess.Popen([*command, "--number", str(n)]) for n in range(1, count + 1)]
    failed = [process.wait() for process in started]
    if any(failed):
        typer.echo(
            "a worker failed: run `lever-plus study run` again to continue the study", err=True
        )
        raise typer.Exit(1)


@study_app.command("show")
def study_show() -> None:
    """Print the trials, write trials.csv and the plots, and log the study to MLflow."""
    _check_installed()
    from rich.console import Console

    from lever_plus.experiments.study.record import log_study, table, write_results
    from lever_plus.experiments.study.settings import read_settings
    from lever_plus.experiments.study.storage import find_study
    from lever_plus.experiments.study.trials import check_trials
    from lever_plus.files.locks import locked
    from lever_plus.pipeline.paths import Paths
    from lever_plus.tracking.store import OTHERS_S

    settings = read_settings(Paths().study_settings)
    study = find_study(settings)
    check_trials(study, settings.space)
    console = Console()
    # A pipe has no width of its own, so the table may be wide there.
    _print_trials(table(study), console if console.is_terminal else Console(width=160))
    # Locked, because several workers in one folder may end at about the same time.
    folder = Paths().study_results
    busy = f"{folder} is being written by another `lever-plus study` command: try again later."
    lock = folder.with_suffix(".lock")
    with locked(lock, busy, "let this user write there", seconds=OTHERS_S):
        files = write_results(study, folder)
        try:
            _, made = log_study(study, settings, files)
            typer.echo(f"{len(files)} files in {folder}; {made} trials are new in MLflow")
        except Exception as error:
            warn_of_mlflow(error, "run `lever-plus study show` later")


def _print_trials(frame: Any, console: Any) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title="Trials, best first", title_justify="left", box=box.SIMPLE_HEAD)
    for name in frame.columns:
        table.add_column(str(name), justify="right", no_wrap=True)
    ordered = frame.sort_values("difference", ascending=False) if len(frame) else frame
    for _, row in ordered.iterrows():
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    console.print(
        "difference: dev accuracy minus that of RCE-only, with the same seeds and questions, mean "
        "over shots"
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)


@study_app.command("storage")
def study_storage() -> None:
    """Print where the study is stored, without a password."""
    from lever_plus.experiments.study.settings import read_settings
    from lever_plus.pipeline.paths import Paths

    typer.echo(without_secrets(read_settings(Paths().study_settings).storage))


@study_app.command("promote")
def study_promote() -> None:
    """Train the best trials again on fresh seeds; if one holds up, write it into params.yaml."""
    _check_installed()
    from lever_plus.config.file import load_params
    from lever_plus.experiments.study.objective import Trials
    from lever_plus.experiments.study.promote import accept, repeat_best
    from lever_plus.experiments.study.settings import read_settings
    from lever_plus.experiments.study.storage import find_study
    from lever_plus.pipeline.paths import Paths

    params, settings = load_params(), read_settings(Paths().study_settings)
    study = find_study(settings)
    candidates = repeat_best(study, params, settings, Trials(params, Paths()))
    for candidate in candidates:
        mean, low, high, _ = candidate.difference
        typer.echo(
            f"trial {candidate.trial.number}, seeds {settings.fresh_seeds}: "
            f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points compared with "
            "RCE-only on dev, interval corrected for the choice among trials, KL "
            f"{candidate.kl:.2f} nats"
        )
    best = max(candidates, key=lambda candidate: candidate.difference.mean)
    if not best.accepted(settings):
        typer.echo(
            f"The baseline is kept: trial {best.trial.number}, the best of those trained again, is "
            "not shown to be better within the KL budget."
        )
        return
    accept(best, params, settings, Path("params.yaml"))
    number = best.trial.number
    typer.echo(
        f"params.yaml now has the values of trial {number}. To train and evaluate with them, run "
        f"`dvc exp run -n promote-{number}`, or `dvc repro && git commit -am 'Promote trial "
        f"{number} of {settings.name}'`. Only then are the test questions read."
    )
    _crown(study, number)


def _crown(study: Any, number: int) -> None:
    """Give the model of the trial's run the alias champion in MLflow."""
    from lever_plus.experiments.study.record import study_tags
    from lever_plus.tracking.registry import Registry
    from lever_plus.tracking.store import Store

    try:
        Registry(Store()).crown_trial(f"lever-plus-{study.study_name}", study_tags(study), number)
    except Exception as error:
        warn_of_mlflow(error, "the alias champion was not set")


@study_app.command("dashboard")
def study_dashboard(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. There is no password: a program that reaches another "
            "address than the default can read and delete studies."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve optuna-dashboard for the study, to browsers on this machine."""
    _check_installed()
    from lever_plus.experiments.study.dashboard import dashboard_server
    from lever_plus.experiments.study.settings import read_settings
    from lever_plus.experiments.study.storage import open_storage
    from lever_plus.pipeline.paths import Paths

    # The storage's URL may hold a password, so it is not passed on a command line.
    storage = open_storage(read_settings(Paths().study_settings).storage)
    with dashboard_server(storage, host, port) as server:
        typer.echo(f"dashboard: http://127.0.0.1:{port} (Ctrl-C ends it)")
        server.serve_forever()
