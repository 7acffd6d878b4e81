"""One run of the MLflow store: its parameters, metrics, files and tags are written here."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lever_plus.tracking.hashes import DataInput
from lever_plus.tracking.history import Row
from lever_plus.tracking.makers import ENDED, STATE, alive_tags

FLUSH_SECONDS: Final = 5.0
"""Metrics are sent at least this often while more of them come."""
LARGEST_BATCH: Final = 900
"""Metrics in one call; MLflow accepts at most 1,000."""


class Run:
    """One run; metrics are sent in batches. Methods raise UserError if a call fails."""

    def __init__(
        self, client: Any, run_id: str, ask: Callable[..., Any], model: Any = None
    ) -> None:
        """Take MLflow's client, the run's id, what calls MLflow, and the run's logged model."""
        self._client, self.id, self._ask, self._model = client, run_id, ask, model
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters."""
        from mlflow.entities import Param

        entities = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(entities), 100):
            self._ask(self._client.log_batch, self.id, params=entities[start : start + 100])

    def log_inputs(self, inputs: Sequence[DataInput]) -> None:
        """Log the data that a run was trained on, with their hashes in DVC."""
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
            self._ask(self._client.log_inputs, self.id, datasets)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add metrics; they are sent once the buffer is full or a few seconds old."""
        now = int(time.time() * 1000)
        for key, value in metrics.items():
            self._add(key, value, step, now)
        if len(self._buffer) >= LARGEST_BATCH or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def log_row(self, row: Row) -> None:
        """Log one row of history.jsonl.

        Its key `dev_reward` becomes `dev/reward`, keys with a slash stay as they are, and other
        keys become `train/<key>`. Texts are left out.
        """
        metrics = {
            _metric(key): value
            for key, value in row.items()
            if key != "step" and not isinstance(value, str)
        }
        self.log(metrics, int(row["step"]))

    def log_anew(self, metrics: Mapping[tuple[str, int], float]) -> None:
        """Log the values, {(metric, step): value}, that the run or its model does not hold yet.

        Calling it again with the same values changes nothing, even on several machines at once: all
        of them would add points with the same time stamp, which MLflow keeps once. MLflow writes a
        point to the run first, and then to the model; after a kill between the two, the same point
        is logged again.
        """
        model = self._model
        in_model = {(p.key, p.step, p.timestamp) for p in model.metrics or ()} if model else set()
        held: dict[tuple[str, int], Any] = {}
        for key in {key for key, _ in metrics}:
            points = self._ask(self._client.get_metric_history, self.id, key)
            held |= {(p.key, p.step): p for p in sorted(points, key=lambda p: p.timestamp)}
        started = int(self._ask(self._client.get_run, self.id).info.start_time)
        for (key, step), value in metrics.items():
            last = held.get((key, step))
            if last is None or last.value != value:
                self._add(key, value, step, last.timestamp + 1 if last else started)
            elif model and (key, step, last.timestamp) not in in_model:
                self._add(key, value, step, last.timestamp)
        self.flush()

    def _add(self, key: str, value: float, step: int, time_ms: int) -> None:
        from mlflow.entities import Metric

        model_id = self._model.model_id if self._model else None
        self._buffer.append(Metric(key, float(value), time_ms, step, model_id=model_id))

    def flush(self) -> None:
        """Send the buffer."""
        for start in range(0, len(self._buffer), LARGEST_BATCH):
            part = self._buffer[start : start + LARGEST_BATCH]
            self._ask(self._client.log_batch, self.id, metrics=part)
        self._buffer, self._flushed = [], time.monotonic()

    def give_sign_of_life(self) -> None:
        """Send the buffer, and say that this process is alive."""
        self.flush()
        self.tag(alive_tags())

    def log_file(self, path: Path) -> None:
        """Keep a file with the run."""
        self._ask(self._client.log_artifact, self.id, str(path))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags, all at once."""
        from mlflow.entities import RunTag

        entities = [RunTag(key, value) for key, value in tags.items()]
        self._ask(self._client.log_batch, self.id, tags=entities)

    def tag_model(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run's logged model, if it has one."""
        if self._model:
            self._ask(self._client.set_logged_model_tags, self._model.model_id, dict(tags))

    def end(self, status: str = "FINISHED", tags: Mapping[str, str] | None = None) -> None:
        """Send what is left and end the run.

        Args:
            status: FINISHED, FAILED or KILLED.
            tags: Tags that mark the run as complete; they are written last.
        """
        self.flush()
        self._ask(self._client.set_terminated, self.id, status)
        self.tag({STATE: ENDED, **(tags or {})})


def _metric(key: str) -> str:
    if key == "dev_reward":
        return "dev/reward"
    return key if "/" in key else f"train/{key}"
