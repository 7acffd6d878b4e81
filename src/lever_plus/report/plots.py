"""Plots of the report, as inline SVG, and the CSV files that `dvc plots` shows."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from lever_plus.tracking.history import Row

mpl.use("Agg")
# Fixed ids and no date: equal data give equal bytes.
mpl.rcParams.update({"svg.hashsalt": "lever-plus", "svg.fonttype": "none", "font.size": 10})


def curve_frame(summary: dict[str, Any]) -> pd.DataFrame:
    """Return accuracy over shots: columns method, shots, accuracy, low, high."""
    rows = [
        {
            "method": row["method"],
            "shots": row["shots"],
            "accuracy": row["accuracy"],
            "low": row["ci95"][0],
            "high": row["ci95"][1],
        }
        for row in summary["rows"]
    ]
    return pd.DataFrame(rows)


def history_frame(histories: Mapping[str, Sequence[Row]], key: str) -> pd.DataFrame:
    """Return one quantity of all runs over epochs: columns run, epoch, <key>."""
    rows = [
        {"run": name, "epoch": row["epoch"], key: row[key]}
        for name, history in histories.items()
        for row in history
        if key in row
    ]
    return pd.DataFrame(rows, columns=["run", "epoch", key])


def curve_svg(frame: pd.DataFrame) -> str:
    """Draw accuracy over shots with 95 % intervals; zero-shot is a horizontal line."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (method, part) in enumerate(frame.groupby("method", sort=False)):
        colour = f"C{index}"
        if list(part["shots"]) == [0]:
            axes.axhline(float(part["accuracy"].iloc[0]), color="0.5", ls=":", label=str(method))
            continue
        axes.plot(
            part["shots"], part["accuracy"], marker="o", ms=4, color=colour, label=str(method)
        )
        axes.fill_between(part["shots"], part["low"], part["high"], color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="shots", ylabel="VQA accuracy", ylim=(0, 1.02))
    axes.set_xticks(sorted(set(frame["shots"]) - {0}))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


def trace_svg(frame: pd.DataFrame, key: str, label: str) -> str:
    """Draw one quantity of all runs over epochs."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for run, part in frame.groupby("run", sort=False):
        axes.plot(part["epoch"], part[key], marker=".", label=str(run))
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.3)
    if len(frame):
        figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame for `dvc plots`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n")


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
