"""A study as files (the table of trials, plots) and in MLflow (a parent run, a child per trial).

The study's storage is the record. Everything here is made from it, and can be made again at any
time.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw

from lever_plus.experiments.study.liveness import ROLE
from lever_plus.experiments.study.settings import StudySettings
from lever_plus.experiments.study.trials import KL
from lever_plus.experiments.study.worker import UID
from lever_plus.files.writing import replacing
from lever_plus.tracking.store import Store

CONTOUR: Final = ["learning_rate", "kl_beta"]
STATES: Final = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


def table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial that has ended: number, state, role, difference, KL, values."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "role": trial.user_attrs.get(ROLE, ""),
            "difference": trial.value if trial.state == TrialState.COMPLETE else None,
            "kl": trial.user_attrs.get(KL),
            "feasible": is_feasible(trial),
            **trial.params,
        }
        for trial in ended(study)
    ]
    return pd.DataFrame(rows)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have ended: they are complete, pruned or failed."""
    return study.get_trials(deepcopy=False, states=tuple(STATES))


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial is complete and within the KL budget."""
    kept = all(value <= 0 for value in trial.constraints.values())
    return trial.state == TrialState.COMPLETE and kept


def best_trials(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Return the best feasible trials with GRPO, best first; others only repeat the baseline."""
    found = [t for t in ended(study) if is_feasible(t) and t.params["epochs"] > 0]
    return sorted(found, key=lambda trial: (-float(trial.value or 0.0), trial.number))[:count]


def competing(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials among which the best one was chosen: those with GRPO that did not fail."""
    return [t for t in ended(study) if t.state != TrialState.FAIL and t.params["epochs"] > 0]


def write_results(study: optuna.Study, folder: Path) -> list[Path]:
    """Write trials.csv, and plots once there are enough trials; return the files."""
    mpl.use("Agg")
    frame = table(study)
    files = [folder / "trials.csv"]
    with replacing(files[0]) as fresh:
        frame.to_csv(fresh, index=False, lineterminator="\n")
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(study),
        "importances": lambda: draw.plot_param_importances(study),
        "parallel_coordinates": lambda: draw.plot_parallel_coordinate(study),
        "contour": lambda: draw.plot_contour(study, params=CONTOUR),
    }
    # Parameter importances need trials with different results.
    complete = frame[frame["state"] == "complete"] if len(frame) else frame
    if len(complete) < 3 or complete["difference"].nunique() < 2:
        return files
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for name, plot in plots.items():
        path = folder / f"{name}.png"
        axes = plot()
        figure = axes.figure if hasattr(axes, "figure") else axes.flat[0].figure
        figure.set_size_inches(9, 5)
        with replacing(path) as fresh:
            figure.savefig(fresh, dpi=110, bbox_inches="tight")
        files.append(path)
    return files


def study_tags(study: optuna.Study) -> dict[str, str]:
    """Return tags that identify a study, even against a deleted one of the same name."""
    return {"optuna.study": study.study_name, "optuna.uid": str(study.user_attrs.get(UID, ""))}


def log_study(study: optuna.Study, settings: StudySettings, files: list[Path]) -> tuple[str, int]:
    """Log the study to MLflow; return the parent's run id and how many trials were new."""
    store = Store()
    with store.alone():
        store.clear_lost()
        return _project(store, study, settings, files)


def _project(
    store: Store, study: optuna.Study, settings: StudySettings, files: list[Path]
) -> tuple[str, int]:
    tags = {"pipeline.stage": "study", **study_tags(study)}
    parent_tags = {**tags, "pipeline.scope": "parent"}
    known = store.find(parent_tags)
    if known is None:
        # The parent run ends before it has children, because the study may run for days.
        opened = store.create(f"study/{settings.name}", parent_tags, {})
        opened.end()
        store.keep_first(parent_tags)
        # Another machine may have been faster; its run then adopts the children of this one.
        known = store.find(parent_tags) or opened.id
    parent = store.open(known)
    made = 0
    for trial in ended(study):
        child_tags = {
            **tags,
            "pipeline.scope": "child",
            "optuna.trial": str(trial.number),
        }
        family = {"mlflow.parentRunId": parent.id}
        if store.find({**child_tags, **family}) is not None:
            continue
        if orphan := store.find(child_tags):
            store.open(orphan).tag(family)
            continue
        _log_trial(store, settings, trial, {**child_tags, **family})
        store.keep_first(child_tags)
        made += 1
    last, values = (
        len(study.trials),
        {("study/trials", len(study.trials)): float(len(ended(study)))},
    )
    best = best_trials(study, 1)
    if best:
        values["study/best_difference", last] = float(best[0].value or 0.0)
    parent.log_anew(values)
    for path in files:
        parent.log_file(path)
    return parent.id, made


def _log_trial(
    store: Store, settings: StudySettings, trial: FrozenTrial, tags: dict[str, str]
) -> None:
    role = {"role": str(trial.user_attrs.get(ROLE, "candidate"))}
    name = f"study/{settings.name}/trial-{trial.number:03d}"
    run = store.create(name, {**tags, **role, "optuna.state": trial.state.name}, trial.params)
    attributes = {k: v for k, v in trial.user_attrs.items() if k.startswith(("dev_acc", KL))}
    run.log({f"study/{key}": float(value) for key, value in attributes.items()}, 0)
    if trial.state == TrialState.COMPLETE:
        run.log({"study/difference": float(trial.value or 0.0)}, 0)
    for step, value in sorted(trial.intermediate_values.items()):
        run.log({"study/difference_so_far": value}, step)
    run.end(STATES[trial.state])
