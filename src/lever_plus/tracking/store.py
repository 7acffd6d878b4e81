"""The MLflow store: where it is, and one run in it."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lever_plus.errors import needs
from lever_plus.tracking.hashes import DataInput
from lever_plus.tracking.history import Row
from lever_plus.tracking.lineage import git_commit

EXPERIMENT = "lever-plus"
DVC_TAGS = {
    "dvc.stage": "DVC_STAGE",
    "dvc.exp_name": "DVC_EXP_NAME",
    "dvc.baseline_rev": "DVC_EXP_BASELINE_REV",
}
"""Tags that say which stage and experiment of DVC a run belongs to, and what exports them."""
FLUSH_SECONDS = 5.0
LARGEST_BATCH = 900
SQLITE = "sqlite:///"


def project_root() -> Path:
    """Return the project's root: DVC runs experiments in temporary folders and exports DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{project_root() / 'mlflow.db'}"


class Store:
    """Creates, finds and fills runs."""

    def __init__(self) -> None:
        """Connect; a new SQLite file is made by one process alone, or it would be corrupted.

        Raises:
            UserError: MLflow is not installed.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        with needs("tracking", "MLflow tracking"):
            from filelock import FileLock
            from mlflow import MlflowClient

        uri = tracking_uri()
        if uri.startswith(SQLITE):
            with FileLock(uri.removeprefix(SQLITE) + ".lock"):
                self._client = MlflowClient(uri)
                self._experiment = self._experiment_id()
        else:
            self._client = MlflowClient(uri)
            self._experiment = self._experiment_id()

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT))

    @property
    def experiment(self) -> str:
        """Return the id of the experiment."""
        return self._experiment

    def share_view(self, tag: str, state: str) -> None:
        """Keep a view of the experiment, if it is not kept yet."""
        experiment = self._client.get_experiment(self._experiment)
        if experiment.tags.get(tag) != state:
            self._client.set_experiment_tag(self._experiment, tag, state)

    def find(self, tags: Mapping[str, str]) -> str | None:
        """Return the newest run with all these tags, or None."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([self._experiment], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def create(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> "Run":
        """Start a run with lineage tags and flattened params."""
        commit, dirty = git_commit()
        lineage = {"git.commit": commit, "git.dirty": str(dirty).lower()}
        for tag, variable in DVC_TAGS.items():
            if os.environ.get(variable):
                lineage[tag] = os.environ[variable]
        note = f"Reproduce: `git checkout {commit} && dvc repro`"
        described = {"mlflow.note.content": note, **lineage, **tags}
        created = self._client.create_run(self._experiment, run_name=name, tags=described)
        run = Run(self._client, str(created.info.run_id))
        run.log_params(params)
        return run

    def open(self, run_id: str) -> "Run":
        """Go on with an existing run, and with the model that it made."""
        found = self._client.search_logged_models(
            [self._experiment], filter_string=f"source_run_id = '{run_id}'", max_results=1
        )
        return Run(self._client, run_id, found[0].model_id if found else None)

    def champion(self, model: str, study: Mapping[str, str], trial: int) -> None:
        """Register a trial's run as the newest version of a model, and name it champion.

        Args:
            model: Name of the registered model.
            study: Tags of the study's runs.
            trial: Number of the trial.

        Raises:
            LookupError: The trial has no run.
        """
        tags = {**study, "optuna.trial": str(trial)}
        run_id = self.find(tags)
        if run_id is None:
            raise LookupError(f"trial {trial} has no run: run `lever-plus study show` first")
        if not self._client.search_registered_models(f"name = '{model}'"):
            self._client.create_registered_model(model)
        source = self._client.get_run(run_id).info.artifact_uri
        made = self._client.create_model_version(model, source, run_id, tags=tags)
        self._client.set_registered_model_alias(model, "champion", made.version)

    def add_model(self, run: "Run", name: str, path: Path, md5: str) -> None:
        """Make a logged model that points to a checkpoint; the weights stay with DVC."""
        tags = {"dvc.path": str(path), "dvc.md5": md5}
        model = self._client.create_logged_model(
            self._experiment, name, run.id, tags=tags, model_type="pointer policy"
        )
        self._client.finalize_logged_model(model.model_id, "READY")
        run.model = model.model_id


class Run:
    """One run; metrics are sent in batches."""

    def __init__(self, client: Any, run_id: str, model: str | None = None) -> None:
        """Keep the client, the run's id, and the id of the model it made, if there is one."""
        self._client, self.id, self.model = client, run_id, model
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters."""
        from mlflow.entities import Param

        entities = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(entities), 100):
            self._client.log_batch(self.id, params=entities[start : start + 100])

    def log_inputs(self, inputs: Sequence[DataInput]) -> None:
        """Log the data that a run was made from, by their DVC hashes."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        datasets = [
            DatasetInput(
                Dataset(
                    name=each.path,
                    digest=each.md5[:36],
                    source_type="local",
                    source=json.dumps({"uri": each.path}),
                ),
                [InputTag("mlflow.data.context", "training"), InputTag("dvc.md5", each.md5)],
            )
            for each in inputs
        ]
        if datasets:
            self._client.log_inputs(self.id, datasets)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics; they are sent when the buffer is full or a few seconds old."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [
            Metric(key, float(value), now, step, model_id=self.model)
            for key, value in metrics.items()
        ]
        if len(self._buffer) >= LARGEST_BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def log_row(self, row: Row) -> None:
        """Log one row of history.jsonl: `train/<key>`, `dev/reward`, and `scoring/...` as it is."""
        metrics = {
            _metric(key): value
            for key, value in row.items()
            if key != "step" and not isinstance(value, str)
        }
        self.log(metrics, int(row["step"]))

    def flush(self) -> None:
        """Send the buffer."""
        for start in range(0, len(self._buffer), LARGEST_BATCH):
            self._client.log_batch(self.id, metrics=self._buffer[start : start + LARGEST_BATCH])
        self._buffer, self._flushed = [], time.monotonic()

    def log_file(self, path: Path) -> None:
        """Keep a file with the run."""
        self._client.log_artifact(self.id, str(path))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self._client.set_tag(self.id, key, value)

    def end(self, status: str = "FINISHED") -> None:
        """Send what is left and end the run."""
        self.flush()
        self._client.set_terminated(self.id, status)


def _metric(key: str) -> str:
    if key == "dev_reward":
        return "dev/reward"
    return key if "/" in key else f"train/{key}"
