"""Accuracy over shots, over demonstrations shown, and over the VLM requests to train."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import pandas as pd

from lever_plus.config.names import GRPO_STOP
from lever_plus.evaluation.methods import INSTRUCTED, ZERO_SHOT, Methods
from lever_plus.report import findings
from lever_plus.report.front import looks
from lever_plus.report.page import figures, folded, note, plot, table
from lever_plus.report.plots import axes_of, curve_svg, draw_intervals, legend, look, svg_of
from lever_plus.report.tables import STOP_HEADER, STOP_UNITS, Summary, notes, stop_rows

Row = dict[str, Any]
TEXT: Final = (
    "This policy decides, before the first demonstration and after each one, whether another is "
    "worth its price: {unit}. It may show at most {shots}. shown: how many it shows on average "
    "over questions and trainings."
)


def over_shots(curve: pd.DataFrame, summary: Summary, methods: Methods) -> str:
    """Return the plots: trained methods beside the best baselines, baselines, ceilings."""
    trained, plain = methods.names("trained"), methods.names("similarity", "baseline")
    own, ceilings = methods.names("selector"), methods.names("ceiling")
    best = (findings.best(summary, some) for some in (methods.names("similarity"), trained, plain))
    similar, top, untrained = (row["method"] if row else "" for row in best)
    shown = {
        "Trained policies": [ZERO_SHOT, INSTRUCTED, similar, untrained, *own, *trained],
        "Baselines": [*plain, *own],
        "Ceilings, which see the true answers": [ZERO_SHOT, top, *ceilings],
    }
    order = looks(methods)
    svgs = [
        curve_svg(curve[curve["method"].isin(some)], label, order) for label, some in shown.items()
    ]
    numbers = curve[["method", "shots", "accuracy", "low", "high"]].astype({"shots": str})
    cells = [
        [m, s, *(f"{100 * v:.1f}" for v in values)]
        for m, s, *values in numbers.itertuples(index=False)
    ]
    header = ["method", "shots", "accuracy", "low", "high"]
    return (
        figures(svgs)
        + note("Bars are 95 % intervals. Points are moved sideways a little to keep them apart.")
        + folded("The numbers", table(header, cells))
    )


def shown_frame(summary: Summary, curve: Sequence[Row]) -> pd.DataFrame:
    """Return accuracy over what is shown: method, price, demonstrations, accuracy, low, high.

    A method has a row for every number of demonstrations that it was asked for (without a price),
    and the policy that stops one for every price. Fewer may be shown than were asked for.
    """
    asked = [row for row in summary["rows"] if row["method"] != GRPO_STOP]
    rows = [(row["method"], None, row) for row in asked if row.get("demonstrations") is not None]
    rows += [(GRPO_STOP, row["price"], row) for row in curve]
    return pd.DataFrame(
        [(m, price, r["demonstrations"], r["accuracy"], *r["ci95"]) for m, price, r in rows],
        columns=["method", "price", "demonstrations", "accuracy", "low", "high"],
    )


def stop_section(stop: Mapping[str, Any], frame: pd.DataFrame, methods: Methods) -> str:
    """Return plot and table of the policy that stops; "" where none does.

    Args:
        stop: metrics/stop.json.
        frame: See `shown_frame`.
        methods: What the methods are.
    """
    rows = stop["rows"]
    if not rows:
        return ""
    text = TEXT.format(unit=STOP_UNITS[stop["price_per"]], shots=rows[0]["shots"])
    drawn = plot(shown_svg(frame, methods))
    return note(" ".join([text, *notes(rows)])) + drawn + table(STOP_HEADER, stop_rows(rows))


def shown_svg(frame: pd.DataFrame, methods: Methods) -> str:
    """Draw accuracy over the demonstrations that are shown, with 95 % intervals.

    Args:
        frame: See `shown_frame`.
        methods: Only the trained ones are drawn: on a scale that reaches down to the others, the
            prices could not be told apart.
    """
    trained = methods.names("trained")
    drawn = [m for m in frame["method"].drop_duplicates() if m in trained]
    label = "VQA accuracy over demonstrations shown"
    figure, axes = axes_of(5.2)
    order = looks(methods)
    for method in drawn:
        part = frame[frame["method"] == method].sort_values("demonstrations")
        style = {"lw": 1.4, "ls": "-"} if method == GRPO_STOP else {"lw": 0.8, "ls": ":"}
        at = part["demonstrations"].to_numpy()
        draw_intervals(axes, at, part, label=method, **style, **look(order.index(method)))
        priced = part[part["price"].notna()]
        for row in priced.iloc[[0, -1]].itertuples() if len(priced) else ():  # others would overlap
            point = (row.demonstrations, row.accuracy)
            axes.annotate(f"{row.price:g}", point, (0, 6), textcoords="offset points", size=8)
    axes.set(title=label, xlabel="demonstrations shown, mean", ylabel="VQA accuracy")
    legend(figure, *axes.get_legend_handles_labels())
    return svg_of(figure, f"{label}; the highest and the lowest price are named")


def requests_frame(ablations: Mapping[str, Any]) -> pd.DataFrame:
    """Return accuracy over what training asks: method, variant, requests, accuracy, low, high.

    Args:
        ablations: metrics/ablations.json.

    Returns:
        The rows that answer the question `curve`: methods in the order of the file, each from the
        fewest VLM requests to the most. Accuracies are means over shots. What asks the VLM nothing
        is left out, because it has no place on a log scale.
    """
    rows = [
        row
        for row in ablations["rows"]
        if row.get("asks") == ablations["curve"] and row.get("vlm_requests")
    ]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    rows.sort(key=lambda row: (methods.index(row["method"]), row["vlm_requests"]))
    return pd.DataFrame(
        [(r["method"], r["variant"], r["vlm_requests"], r["accuracy"], *r["ci95"]) for r in rows],
        columns=["method", "variant", "requests", "accuracy", "low", "high"],
    )


def requests_section(ablations: Mapping[str, Any], methods: Methods) -> str:
    """Return the plot of accuracy over requests; "" where nothing is drawn.

    Args:
        ablations: metrics/ablations.json.
        methods: What the methods are.
    """
    frame = requests_frame(ablations)
    if frame.empty:
        return ""
    return f"<h4>{escape(ablations['curve'])}</h4>" + plot(requests_svg(frame, methods))


def requests_svg(frame: pd.DataFrame, methods: Methods) -> str:
    """Draw accuracy over VLM requests, on a log scale, with 95 % intervals.

    Args:
        frame: See `requests_frame`.
        methods: Those of all plots of the page, so that a method looks the same in each.
    """
    label = "VQA accuracy over VLM requests to train"
    known = list(dict.fromkeys([*looks(methods), *frame["method"]]))
    figure, axes = axes_of(5.2)
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for method, part in frame.groupby("method", sort=False):
        at, style = part["requests"].to_numpy(), look(known.index(str(method)))
        draw_intervals(axes, at, part, label=str(method), lw=1.4, **style)
    axes.set(title=label, xlabel="VLM requests to train", xscale="log")
    axes.set_ylabel("VQA accuracy, mean over shots")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    legend(figure, *axes.get_legend_handles_labels())
    return svg_of(figure, label)
