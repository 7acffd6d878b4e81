"""The first plot: accuracy over demonstrations of few methods, for the page and for the README."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lever_plus.config.names import GRPO, GRPO_STOP, SFT
from lever_plus.evaluation.methods import (
    INSTRUCTED,
    ORACLE,
    RANDOM,
    STTR_AS_MANY,
    ZERO_SHOT,
    Kind,
    Methods,
    methods_in,
)
from lever_plus.evaluation.plain_names import explained
from lever_plus.report.findings import best
from lever_plus.report.plots import axes_of, curve_frame, draw_curves, legend, svg_of
from lever_plus.report.tables import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABEL: Final = "Accuracy by number of demonstrations"
DPI: Final = 160


def front_methods(summary: Summary, learned: str | None = None) -> list[str]:
    """Return at most seven methods that tell the story, each only if the summary has it.

    They are: no demonstrations, random ones, the best by similarity, imitation, offline learning,
    a learned selector, and the search that knows the true answers.

    Args:
        summary: metrics/summary.json.
        learned: The learned selector; GRPO with STOP, or GRPO where no policy stops, if none.
    """
    methods = methods_in(summary)
    learned = learned or (GRPO_STOP if GRPO_STOP in methods else GRPO)
    similar = best(summary, set(methods.names("similarity")) - {STTR_AS_MANY})
    nearest = similar["method"] if similar else ZERO_SHOT
    story = (ZERO_SHOT, RANDOM, nearest, SFT, methods.offline or SFT, learned, ORACLE)
    return [name for name in dict.fromkeys(story) if name in methods]


def looks(methods: Methods) -> list[str]:
    """Return all methods in the order in which they get colours and markers.

    Trained ones come first and get the clearest; those that are drawn as plain lines come last.
    """
    kinds: tuple[Kind, ...] = ("trained", "ceiling", "similarity", "selector", "baseline")
    names = [name for kind in kinds for name in methods.names(kind)]
    return sorted(names, key=lambda name: name in (ZERO_SHOT, INSTRUCTED))


def front_svg(summary: Summary, shown: Sequence[str]) -> str:
    """Draw accuracy over demonstrations with 95 % intervals; every method is explained.

    Args:
        summary: metrics/summary.json.
        shown: Methods, such as `front_methods`.
    """
    label = f"{LABEL}, with 95 % intervals; the tables below have the numbers"
    return svg_of(_front(summary, shown), label)


def write_front_png(path: Path, summary: Summary, shown: Sequence[str] | None = None) -> None:
    """Write the same plot as a PNG file on white, for a README.

    Args:
        path: Where to.
        summary: metrics/summary.json.
        shown: Methods; `front_methods` if none.
    """
    figure = _front(summary, shown or front_methods(summary))
    # No date and no version: equal data give equal bytes.
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _front(summary: Summary, shown: Sequence[str]) -> "Figure":
    methods, frame = methods_in(summary), curve_frame(summary)
    numbers = ["accuracy", "low", "high"]
    frame[numbers] *= 100
    figure, axes = axes_of(4 + 0.24 * len(shown))
    draw_curves(axes, frame[frame["method"].isin(shown)], looks(methods))
    axes.set(
        title=LABEL,
        xlabel="number of demonstrations (at most)",
        ylabel="VQA accuracy, %",
        ylim=(0, 102),
    )
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    names = [explained(methods[method]) for method in shown]
    legend(figure, [found[method] for method in shown], names, columns=1, size=11.5)
    return figure
