"""Pages of the MLflow UI that answer the usual questions, as addresses.

The table of results is a shared view: its columns and order are kept as a tag of the experiment, in
the form in which the UI itself shares one.
"""

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

RESULTS: Final = "results"
VIEW_TAG: Final = f"mlflow.sharedViewState.{RESULTS}"
MEAN: Final = "metrics.`eval/acc/mean`"


def results_view(shots: int, versus: str) -> str:
    """Return the state of the table of results: per-shot accuracies, the best method first.

    Ablations have a mean alone; they would hide the methods of the pipeline, and are filtered out.

    Args:
        shots: Of a pointer.
        versus: Method whose paired differences are shown.
    """
    accuracies = [f"metrics.`eval/acc/shot_{shot:02d}`" for shot in range(1, shots + 1)]
    state = {
        "orderByKey": MEAN,
        "orderByAsc": False,
        "searchFilter": f"{accuracies[0]} > 0",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            "tags.`pipeline.method`",
            *accuracies,
            MEAN,
            f"metrics.`delta/vs_{versus}`",
            "metrics.`train/kl`",
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
    }
    return json.dumps(state, sort_keys=True)


def results_address(server: str, experiment: str) -> str:
    """Return the address of the table of results."""
    return f"{server}/#/experiments/{experiment}/runs?viewStateShareKey={RESULTS}"


def compare_address(server: str, experiment: str, run_ids: Sequence[str], metric: str) -> str:
    """Return the address where runs are compared by one metric over its steps."""
    plain = {"x_axis": "step", "y_axis_scale": "linear"}
    parts: dict[str, Any] = {
        "runs": list(run_ids),
        "metric": metric,
        "experiments": [experiment],
        "plot_metric_keys": [metric],
        "plot_layout": {"autosize": True, "xaxis": {}, "yaxis": {}},
        "line_smoothness": 1,
        "show_point": True,
        "deselected_curves": [],
        "last_linear_y_axis_range": [],
    }
    encoded = [f"{key}={quote(json.dumps(value))}" for key, value in parts.items()]
    return f"{server}/#/metric?" + "&".join(encoded + [f"{k}={v}" for k, v in plain.items()])
