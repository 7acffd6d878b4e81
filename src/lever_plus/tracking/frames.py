"""MLflow runs as tables, for notebooks and other readers."""

import pandas as pd

from lever_plus.tracking.store import Store

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
        for run in Store().runs("attributes.status = 'FINISHED'", page=1000)
    ]
    return pd.DataFrame(rows)


def trace(run_id: str, metric: str) -> pd.DataFrame:
    """Return one metric of a run over its steps: columns step, value."""
    points = Store().history(run_id, metric)
    return pd.DataFrame({"step": [p.step for p in points], "value": [p.value for p in points]})
