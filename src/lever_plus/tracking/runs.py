"""MLflow runs are made from files that DVC keeps, and can be made again at any time.

A training stage logs to its run while it trains. `sync` creates the runs that are missing (a stage
that DVC took from its cache, a fresh clone, a server that was down) from the same history files,
and adds evaluations. It can be repeated: a run is found by the md5 of its history file, a tag that
is written last, when the run is complete.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lever_plus.config.names import AGRO
from lever_plus.config.params import Params
from lever_plus.files.names import check_name
from lever_plus.tracking.address import project_root, tracking_uri
from lever_plus.tracking.checkpoints import checkpoint_md5, whole_tags
from lever_plus.tracking.evaluations import Evaluation, read_ablations, read_evaluation, read_usage
from lever_plus.tracking.hashes import data_inputs
from lever_plus.tracking.history import Row, read_history
from lever_plus.tracking.live import CALL_S, LiveLog
from lever_plus.tracking.makers import CLOSE, DELETE
from lever_plus.tracking.registry import Registry, Selectors, register
from lever_plus.tracking.run import Run
from lever_plus.tracking.store import OTHERS_S, Store
from lever_plus.tracking.training_run import TrainingRun, md5
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
    """Open a run for a training stage; yield the function that logs a history row.

    No failure of MLflow affects the training: the history file has everything, and `lever-plus
    track sync` can create the run later.
    """
    uri = tracking_uri()

    def open_run() -> Run:
        return _create(Store(uri, seconds=CALL_S), params, run, CLOSE)

    live = LiveLog(uri, open_run)
    try:
        yield live.row
    except BaseException:
        live.end(lambda opened: opened.end("FAILED"))
        raise
    # Hash the files as they are now: the thread may run this last step later.
    whole = whole_tags(run) if run.history.is_file() else {}
    live.end(lambda opened: opened.end(tags=whole))


def _create(store: Store, params: Params, run: TrainingRun, if_lost: str) -> Run:
    opened = store.create(run.name, run.tags, flatten(params.model_dump()), if_lost)
    opened.log_inputs(data_inputs(run.stage, run.seed, project_root()))
    return opened


class Synced(NamedTuple):
    """The numbers of runs created, of runs that got an evaluation, and of registered selectors."""

    made: int
    evaluated: int
    registered: int


def sync(
    params: Params,
    runs: list[TrainingRun],
    summary: Path,
    usage: Path,
    ablations: Path | None = None,
    store: Store | None = None,
    selectors: Selectors | None = None,
) -> Synced:
    """Create missing runs from history files, register their selectors, and add evaluations.

    It can be killed at any moment, and several can run at once: each run is created once, and a run
    is used only when it is complete. Runs that were cut off are closed (trainings) or deleted (runs
    that `sync` creates).

    Args:
        params: Logged with every new run.
        runs: All training runs of the pipeline and of ablations; those that have not ended are
            skipped.
        summary: metrics/summary.json; no evaluation is added if it is missing.
        usage: Folder with the files that count each stage's requests to the VLM on this machine; it
            may be missing.
        ablations: metrics/ablations.json, if the variants are evaluated.
        store: Where the runs are kept; None is the store at `tracking_uri`.
        selectors: Which of the trainings are registered as models; None for none.

    Raises:
        UserError: The store can't be used, other processes use it for too long, or a file is
            damaged.
    """
    evaluations = [(read_evaluation(summary), md5(summary))] if summary.is_file() else []
    if ablations and ablations.is_file():
        evaluations.append((read_ablations(ablations), md5(ablations)))
    store = store or Store()
    with store.alone(OTHERS_S):
        store.clear_lost()
        view = results_view(params.pointer.shots, next(iter(params.rce.tau), AGRO))
        store.share_view(VIEW_TAG, view)
        for path in sorted(usage.rglob("*.json")):
            _project_usage(store, params, path, usage)
        made = sum(_project_history(store, params, run) for run in runs)
        # Before the evaluation, so that its figures are logged with the model too.
        registered = 0 if selectors is None else register(store, selectors)
        evaluated = sum(
            _project_method(store, method, runs, evaluation, key)
            for evaluation, key in evaluations
            for method in evaluation.methods
        )
    return Synced(made, evaluated, registered)


def _project_usage(store: Store, params: Params, path: Path, usage: Path) -> None:
    """Log the requests to the VLM of a stage that has no training run of its own.

    The file is `<stage>.json`, or `<stage>/seed<k>.json` if the stage runs once per training seed.
    """
    parts = path.relative_to(usage).with_suffix("").parts
    stage, *item = (check_name(part, f"{path}: the stage, or its seed,") for part in parts)
    name = "/".join((stage, "scoring", *item))
    tags = {"pipeline.stage": stage, "pipeline.method": "scoring"}
    if item:
        tags["pipeline.seed"] = item[0].removeprefix("seed")
    whole = {USAGE_MD5: md5(path)}
    if store.find({**tags, **whole}) is None:
        figures = read_usage(path)
        opened = store.create(name, tags, flatten(params.model_dump()))
        opened.log(figures, 0)
        opened.end(tags=whole)
        store.keep_first({**tags, **whole})


def _project_history(store: Store, params: Params, run: TrainingRun) -> bool:
    """Create a training's run if it is missing; return whether it was."""
    # A training that is under way logs to its run itself.
    if not run.is_whole or store.find(run.key()) or store.is_under_way(run.tags):
        return False
    key, whole = run.key(), whole_tags(run)
    rows = read_history(run.history)
    if whole_tags(run) != whole:
        return False  # the training has started again
    opened = _create(store, params, run, DELETE)
    for row in rows:
        opened.log_row(row)
    opened.end(tags=whole)
    store.keep_first(key)
    return True


def _project_method(
    store: Store, method: str, runs: list[TrainingRun], evaluation: Evaluation, key: str
) -> int:
    """Log a method's evaluation to the runs of its checkpoints, or to a run of its own."""
    trained = sorted((run for run in runs if run.evaluated_as == method), key=lambda run: run.seed)
    whole, added = {SUMMARY_MD5: key}, 0
    if trained and evaluation.seeds(method) != {len(trained)}:
        warnings.warn(
            f"{method} was evaluated with other seeds than it is trained with now: run `dvc repro` "
            "first, so that its accuracies can be logged to MLflow.",
            stacklevel=2,
        )
        return 0
    for place, run in enumerate(trained):
        run_id = store.find(run.key()) if run.is_whole else None
        if run_id is None:
            continue
        # If several trainings gave the same history, `find` returns the newest run.
        complete = store.find({**run.key(), **whole}) == run_id
        # A model may be registered after its run was evaluated.
        model = Registry(store).model(run_id, checkpoint_md5(run))
        if not complete or (model and model.tags.get(SUMMARY_MD5) != key):
            opened = store.open(run_id, model)
            opened.log_anew(evaluation.values(method, place))
            opened.tag_model(whole)
            opened.tag(whole)
            added += 1
    tags = {"pipeline.stage": "evaluate", "pipeline.method": method}
    if not trained and store.find({**tags, **whole}) is None:
        opened = store.create(f"evaluate/{method}", tags, {})
        opened.log_anew(evaluation.values(method, None))
        opened.end(tags=whole)
        store.keep_first({**tags, **whole})
        added += 1
    return added


def pages(server: str, compared: Sequence[TrainingRun]) -> dict[str, str]:
    """Return pages of the MLflow UI as {what the page shows: address}.

    Args:
        server: Address of the UI.
        compared: Runs to compare side by side; their pages are left out until the store has all of
            them.
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
