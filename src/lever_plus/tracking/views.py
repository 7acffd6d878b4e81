"""Addresses of pages in the MLflow UI: the table of results, and runs side by side.

The table of results is a shared view: its columns and order are a tag of the experiment, in the
same form as the UI itself saves a view that a user shares.
"""

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

RESULTS: Final = "results"
VIEW_TAG: Final = f"mlflow.sharedViewState.{RESULTS}"
MEAN: Final = "metrics.`eval/acc/mean`"


def results_view(shots: int, versus: str) -> str:
    """Return the table of results as MLflow's JSON: accuracies at each shot, best method first.

    Ablations are filtered out: they have no accuracies at single shots, and would crowd the table.

    Args:
        shots: Length of a pointer; the table has a column for each shot 1..shots.
        versus: Method that the others are compared with; their differences are a column.
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
    """Return the address of the page that compares runs by one metric over its steps."""
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
