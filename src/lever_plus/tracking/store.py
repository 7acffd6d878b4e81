"""The MLflow store: where it is, and one run in it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from lever_plus.tracking.history import Row
from lever_plus.tracking.lineage import git_commit

EXPERIMENT = "lever-plus"
FLUSH_SECONDS = 5.0
LARGEST_BATCH = 900
SQLITE = "sqlite:///"


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else mlflow.db in the project's root.

    DVC runs experiments in temporary folders and exports DVC_ROOT, the real root, to them.
    """
    root = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root / 'mlflow.db'}"


class Store:
    """Creates, finds and fills runs."""

    def __init__(self) -> None:
        """Connect; a new SQLite file is made by one process alone, or it would be corrupted."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
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

    def find(self, tags: Mapping[str, str]) -> str | None:
        """Return the newest run with all these tags, or None."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([self._experiment], wanted, max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def create(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> "Run":
        """Start a run with lineage tags and flattened params."""
        commit, dirty = git_commit()
        lineage = {"git.commit": commit, "git.dirty": str(dirty).lower()}
        if "DVC_STAGE" in os.environ:
            lineage["dvc.stage"] = os.environ["DVC_STAGE"]
        created = self._client.create_run(self._experiment, run_name=name, tags={**lineage, **tags})
        run = Run(self._client, str(created.info.run_id))
        run.log_params(params)
        return run

    def open(self, run_id: str) -> "Run":
        """Go on with an existing run."""
        return Run(self._client, run_id)


class Run:
    """One run; metrics are sent in batches."""

    def __init__(self, client: Any, run_id: str) -> None:
        """Keep the client and the run's id."""
        self._client, self._id = client, run_id
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters."""
        from mlflow.entities import Param

        entities = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(entities), 100):
            self._client.log_batch(self._id, params=entities[start : start + 100])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics; they are sent when the buffer is full or a few seconds old."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(key, float(value), now, step) for key, value in metrics.items()]
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
            self._client.log_batch(self._id, metrics=self._buffer[start : start + LARGEST_BATCH])
        self._buffer, self._flushed = [], time.monotonic()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in tags.items():
            self._client.set_tag(self._id, key, value)

    def end(self, status: str = "FINISHED") -> None:
        """Send what is left and end the run."""
        self.flush()
        self._client.set_terminated(self._id, status)


def _metric(key: str) -> str:
    if key == "dev_reward":
        return "dev/reward"
    return key if "/" in key else f"train/{key}"
