"""Plots of the report as SVG, and the CSV files that `dvc plots` shows.

A method has one colour and one marker in all plots, a training seed one line style; nothing is told
by colour alone. A plot is drawn on white; `on_page` makes it take the colours of its page instead.
"""

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lever_plus.errors import needs
from lever_plus.files.writing import write_text
from lever_plus.tracking.history import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#010101", "#fffffe"
"""Text and background: colours that nothing else has, so that `on_page` can find them."""
SETTINGS: dict[Any, Any] = {
    # Fixed ids and no date: equal data give equal bytes.
    "svg.hashsalt": "lever-plus",
    "svg.fonttype": "none",
    "font.size": 11,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#c0629a", "#b07d00", "#3f92cc", "#7d7d7d", "#9a5f52"),
    *("#8a5fb0", "#e34a6f", "#5f7a33", "#008f9c", "#c43535", "#5f7f9f", "#c96a1e", "#5470b8"),
)
"""Okabe and Ito's palette and more, in tones with a contrast of 3 on white and on near-black."""
MARKERS = "osD^vPX"
"""Their number has no factor in common with that of the colours: 112 methods look different."""
STYLES = ("-", "--", ":", "-.")
CONSTANTS = (":", "-.")
"""Line styles of methods that show no demonstrations."""
SEED = " seed "
"""What is between method and seed in the name of a run."""


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


def curve_svg(
    frame: pd.DataFrame,
    label: str = "VQA accuracy over shots",
    methods: Sequence[str] | None = None,
) -> str:
    """Draw accuracy over shots with 95 % intervals; what shows nothing is a horizontal line.

    Args:
        frame: See `curve_frame`.
        label: Title.
        methods: Those of all plots of the page, so that a method looks the same in each.
    """
    figure, axes = axes_of(5.2)
    draw_curves(axes, frame, methods or list(frame["method"].drop_duplicates()))
    axes.set(title=label, xlabel="demonstrations (shots)", ylabel="VQA accuracy")
    legend(figure, *axes.get_legend_handles_labels())
    return svg_of(figure, f"{label}, with 95 % intervals; the table of results has the numbers")


def draw_curves(axes: "Axes", frame: pd.DataFrame, methods: Sequence[str]) -> None:
    """Draw a line of accuracies with 95 % intervals for each method.

    Args:
        axes: Of matplotlib.
        frame: See `curve_frame`.
        methods: Those of all plots of the page: a method's place here is how it looks.
    """
    curves = [(str(m), part) for m, part in frame.groupby("method", sort=False)]
    constants = [method for method, part in curves if list(part["shots"]) == [0]]
    dodge = 0.24 / max(1, len(curves) - 1)
    for index, (method, part) in enumerate(curves):
        if method in constants:
            style = CONSTANTS[constants.index(method) % len(CONSTANTS)]
            axes.axhline(float(part["accuracy"].iloc[0]), color="0.4", ls=style, label=method)
            continue
        at = part["shots"].to_numpy() + dodge * index - 0.12  # so that intervals stay apart
        draw_intervals(axes, at, part, label=method, lw=1.4, **look(methods.index(method)))
    axes.set_xticks(sorted(set(frame["shots"]) - {0}))


def draw_intervals(axes: "Axes", at: NDArray[Any], part: pd.DataFrame, **style: Any) -> None:
    """Draw accuracies as a line of points with their 95 % intervals.

    Args:
        axes: Of matplotlib.
        at: Where the points are across, [n].
        part: Columns `accuracy`, `low` and `high`, n rows.
        **style: Of the line.
    """
    accuracy = part["accuracy"].to_numpy()
    heights = np.abs(np.stack([accuracy - part["low"], part["high"] - accuracy]))
    axes.errorbar(at, accuracy, yerr=heights, ms=5, elinewidth=0.9, capsize=2, **style)


def trace_svg(frame: pd.DataFrame, key: str, label: str, known: Sequence[str] | None = None) -> str:
    """Draw one quantity of all runs over epochs.

    Args:
        frame: See `history_frame`; a run is named `<method> seed <k>`.
        key: The quantity.
        label: Title.
        known: Methods of all plots of the page, so that a method looks the same in each.
    """
    figure, axes = axes_of(4.4)
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    names = {str(run): str(run).partition(SEED) for run in frame["run"].drop_duplicates()}
    methods = list(dict.fromkeys(method for method, _, _ in names.values()))
    known = known or methods
    seeds = list(dict.fromkeys(seed for _, _, seed in names.values()))
    for run, (method, _, seed) in names.items():
        part, of_method = frame[frame["run"] == run], look(known.index(method))
        style = STYLES[seeds.index(seed) % len(STYLES)]
        axes.plot(part["epoch"], part[key], ls=style, lw=1.4, ms=4, **of_method)
    axes.set(title=label, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], ls="", ms=6, **look(known.index(m))) for m in methods]
    handles += [Line2D([], [], color=INK, ls=STYLES[i % 4]) for i in range(len(seeds))]
    legend(figure, handles, [*methods, *(f"seed {seed}" for seed in seeds)])
    return svg_of(figure, f"{label}, over epochs, for every training run")


def look(index: int) -> dict[str, Any]:
    """Return colour and marker of a method, by its number."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def reward_svg(rewards: Mapping[str, NDArray[np.float64]]) -> str:
    """Draw a histogram of the candidates' rewards for every generator, on one scale."""
    everything = np.concatenate(list(rewards.values()))
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1, 13)
    figure = _figure(0.6 + 1.35 * len(rewards))
    panels = figure.subplots(len(rewards), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, (method, values) in zip(panels, rewards.items(), strict=True):
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, bins=list(edges), weights=weights, color=COLOURS[0], rwidth=0.92)
        mean = float(np.mean(values))
        axes.axvline(mean, color=COLOURS[1], ls="--", lw=1.4)
        axes.set_title(f"{method}: {len(values)} candidates, mean {mean:.2f}", loc="left", size=11)
        axes.set_ylabel("%")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("reward of a candidate, weighted over shots (dashed: mean)")
    return svg_of(figure, "Distribution of the candidates' rewards, by generator")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame for `dvc plots`."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def _figure(height: float) -> "Figure":
    """Return an empty figure; UserError if Matplotlib is not installed."""
    with needs("plots", "drawing"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    mpl.rcParams.update(SETTINGS)
    return Figure(figsize=(5.6, height), layout="constrained")


def axes_of(height: float) -> tuple["Figure", "Axes"]:
    """Return an empty figure with axes; UserError if Matplotlib is not installed."""
    figure = _figure(height)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def legend(
    figure: "Figure",
    handles: Sequence[Any],
    labels: Sequence[str],
    columns: int = 4,
    size: float = 10,
) -> None:
    """Put a legend under the axes."""
    if labels:
        style: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": size}
        figure.legend(handles, labels, loc="outside lower center", **style)


def svg_of(figure: "Figure", label: str) -> str:
    """Return a figure as SVG with a description; equal figures give equal bytes."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    described = f'<svg role="img" aria-label="{escape(label)}" '
    return text[text.index("<svg") :].replace("<svg ", described, 1)


def on_page(svg: str) -> str:
    """Return a plot that takes the text colour and the background of the page that it is in."""
    return svg.replace(INK, "currentColor").replace(PAPER, "none")
