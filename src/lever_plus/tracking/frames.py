"""MLflow runs as tables, for notebooks and other readers."""

from typing import Any

import pandas as pd

from lever_plus.errors import needs
from lever_plus.tracking.store import EXPERIMENT, tracking_uri

TAGS = {"stage": "pipeline.stage", "method": "pipeline.method", "seed": "pipeline.seed"}


def runs_table() -> pd.DataFrame:
    """Return all finished runs: run_id, name, stage, method, seed, and every metric's last value.

    Metric columns have the metric's name (`eval/acc/mean`); runs without it have NaN there.
    """
    rows = [
        {
            "run_id": run.info.run_id,
            "name": run.info.run_name,
            **{column: run.data.tags.get(tag, "") for column, tag in TAGS.items()},
            **run.data.metrics,
        }
        for run in _finished()
    ]
    return pd.DataFrame(rows)


def trace(run_id: str, metric: str) -> pd.DataFrame:
    """Return one metric of a run over its steps: columns step, value."""
    points = _client().get_metric_history(run_id, metric)
    return pd.DataFrame({"step": [p.step for p in points], "value": [p.value for p in points]})


def _finished() -> list[Any]:
    client = _client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found, token = [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], "attributes.status = 'FINISHED'", page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _client() -> Any:
    with needs("tracking", "MLflow tracking"):
        from mlflow import MlflowClient

    return MlflowClient(tracking_uri())
