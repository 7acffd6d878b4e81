"""MLflow as a projection of the files that DVC keeps.

A training stage logs to its run while it trains; `sync` makes the runs that are missing (a stage
that DVC took from its cache, a fresh clone) from the same history files, and adds evaluations.
Both are idempotent: a run is known by the md5 of its history file.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lever_plus.config.names import AGRO
from lever_plus.config.params import Params
from lever_plus.tracking.hashes import data_inputs
from lever_plus.tracking.history import Row, read_history
from lever_plus.tracking.store import Run, Store, project_root
from lever_plus.tracking.training_run import HISTORY_MD5, TrainingRun, md5
from lever_plus.tracking.views import VIEW_TAG, compare_address, results_address, results_view

SUMMARY_MD5 = "summary.md5"
USAGE_MD5 = "usage.md5"


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"grpo.kl_beta": 0.003, ...} from nested dictionaries."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        flat.update(flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return flat


@contextmanager
def live_run(params: Params, run: TrainingRun) -> Iterator[Callable[[Row], None]]:
    """Open a run for a training stage; yields the observer of its history rows.

    If MLflow can't be reached, training goes on: the history file has everything, and `lever-plus
    track sync` projects it later.
    """
    try:
        store = Store()
        opened = store.create(run.name, run.tags, flatten(params.model_dump()))
        opened.log_inputs(data_inputs(run.stage, project_root()))
    except Exception as error:
        message = f"MLflow is not reachable ({error}): run `lever-plus track sync` later."
        warnings.warn(message, stacklevel=2)
        yield lambda _row: None
        return
    try:
        yield opened.log_row
    except BaseException:
        opened.end("FAILED")
        raise
    opened.tag({HISTORY_MD5: md5(run.history)})
    opened.end()
    _add_model(store, opened, run)


def _add_model(store: Store, opened: Run, run: TrainingRun) -> None:
    if run.is_whole:
        name = f"{run.method}-seed{run.seed}"
        store.add_model(opened, name, run.checkpoint, md5(run.checkpoint))


def sync(
    params: Params,
    runs: list[TrainingRun],
    summary: Path,
    usage: Path,
    ablations: Path | None = None,
) -> tuple[int, int]:
    """Make missing runs from history files and add the evaluation.

    Args:
        params: Logged with every new run.
        runs: All training runs of the pipeline and of ablations; those that have not ended are
            passed over.
        summary: metrics/summary.json; nothing is added where it is missing.
        usage: Folder with what asking the VLM cost each stage on this machine, if there is one.
        ablations: metrics/ablations.json, if the variants are evaluated.

    Returns:
        How many runs were made, and how many got the evaluation.
    """
    store, made, evaluated = Store(), 0, 0
    store.share_view(VIEW_TAG, results_view(params.pointer.shots, next(iter(params.rce.tau), AGRO)))
    for path in sorted(usage.glob("*.json")):
        _project_usage(store, params, path)
    for run in runs:
        # A training that is under way logs to a run of its own.
        if run.is_whole and store.find(run.key()) is None:
            _project_history(store, params, run)
            made += 1
    if summary.is_file():
        rows = json.loads(summary.read_text(encoding="utf-8"))
        for method in dict.fromkeys(row["method"] for row in rows["rows"]):
            evaluated += _project_method(store, method, runs, rows, md5(summary))
    if ablations and ablations.is_file():
        found = _variants_summary(json.loads(ablations.read_text(encoding="utf-8"))["rows"])
        for row in found["means"]:
            evaluated += _project_method(store, row["method"], runs, found, md5(ablations))
    return made, evaluated


def _variants_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the variants' rows in the form of a summary: means, which they have for each seed."""
    variants = [row for row in rows if row["difference"]]
    named = [{**row, "method": f"{row['variant']}/{row['method']}"} for row in variants]
    differences = [
        {
            "method": row["method"],
            "shots": "mean",
            "versus": row["versus"].replace("/", "_"),
            **row["difference"],
        }
        for row in named
    ]
    return {"rows": [], "means": named, "differences": differences}


def _project_usage(store: Store, params: Params, path: Path) -> None:
    """Log what asking the VLM cost a stage that has no training run of its own."""
    tags = {"pipeline.stage": path.stem, "pipeline.method": "scoring", USAGE_MD5: md5(path)}
    if store.find(tags) is None:
        opened = store.create(f"{path.stem}/scoring", tags, flatten(params.model_dump()))
        opened.log(json.loads(path.read_text(encoding="utf-8")), 0)
        opened.end()


def _project_history(store: Store, params: Params, run: TrainingRun) -> None:
    tags = {**run.tags, HISTORY_MD5: md5(run.history)}
    opened = store.create(run.name, tags, flatten(params.model_dump()))
    opened.log_inputs(data_inputs(run.stage, project_root()))
    for row in read_history(run.history):
        opened.log_row(row)
    opened.end()
    _add_model(store, opened, run)


def _project_method(
    store: Store,
    method: str,
    runs: list[TrainingRun],
    summary: dict[str, Any],
    summary_md5: str,
) -> int:
    """Log a method's evaluation to the runs of its checkpoints, or to a run of its own."""
    trained = [run for run in runs if run.evaluated_as == method and run.is_whole]
    added = 0
    for index, run in enumerate(trained):
        run_id = store.find(run.key())
        # Of trainings that gave the same bytes, the last one.
        if run_id and store.find({**run.key(), SUMMARY_MD5: summary_md5}) != run_id:
            _log_evaluation(store.open(run_id), method, summary, index)
            store.open(run_id).tag({SUMMARY_MD5: summary_md5})
            added += 1
    tags = {"pipeline.stage": "evaluate", "pipeline.method": method}
    if not trained and store.find({**tags, SUMMARY_MD5: summary_md5}) is None:
        opened = store.create(f"evaluate/{method}", {**tags, SUMMARY_MD5: summary_md5}, {})
        _log_evaluation(opened, method, summary, None)
        opened.end()
        added += 1
    return added


def _log_evaluation(run: Run, method: str, summary: dict[str, Any], seed_index: int | None) -> None:
    """Log accuracies of one seed (or of all), and the curve with step = number of shots."""
    for row in (row for row in summary["rows"] if row["method"] == method):
        value = row["accuracy"] if seed_index is None else row["seed_accuracies"][seed_index]
        name = f"eval/acc/shot_{row['shots']:02d}"
        low, high = row["ci95"]
        run.log({name: value, f"{name}_ci95_low": low, f"{name}_ci95_high": high}, 0)
        run.log({"curve/acc": value}, row["shots"])
    for row in (row for row in summary["means"] if row["method"] == method):
        value = row["accuracy"] if seed_index is None else row["seed_accuracies"][seed_index]
        low, high = row["ci95"]
        run.log({"eval/acc/mean": value, "eval/acc/ci95_low": low, "eval/acc/ci95_high": high}, 0)
    for row in summary["differences"]:
        if row["method"] == method and row["shots"] == "mean":
            name = f"delta/vs_{row['versus']}"
            low, high = row["ci95"]
            run.log({name: row["difference"], f"{name}_low": low, f"{name}_high": high}, 0)
    run.flush()


def pages(server: str, compared: Sequence[TrainingRun]) -> dict[str, str]:
    """Return {what it shows: address} of pages in the MLflow UI.

    Args:
        server: Address of the UI.
        compared: Runs that are looked at side by side, once the store has them all.
    """
    store = Store()
    found = {"Accuracy of every method": results_address(server, store.experiment)}
    known = [run_id for run in compared if (run_id := store.find(run.tags))]
    if len(known) == len(compared):
        names = " and ".join(run.method.upper() for run in compared)
        for label, metric in (("KL", "train/kl"), ("accuracy over shots", "curve/acc")):
            address = compare_address(server, store.experiment, known, metric)
            found[f"{names}: {label}"] = address
    return found
